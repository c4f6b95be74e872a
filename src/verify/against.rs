//! The checks that the chain's facts decide.

use alloy::primitives::B256;

use crate::domain::{Amount, InvalidReason, Refusal};

use super::Terms;

/// What the chain says about one payment, all of it at one block. Plain facts, no judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSnapshot {
    /// The height that every fact below is of.
    pub block_number: u64,
    /// The block that every fact below is of.
    pub block_hash: B256,
    /// Whether the payer is a contract or an EIP-7702 delegated account.
    pub payer_has_code: bool,
    /// Whether there is a contract at the asset's address.
    pub asset_has_code: bool,
    /// What the exact settlement call would do.
    pub simulation: Simulation,
    /// `authorizationState(payer, nonce)`; `None` if the asset does not answer it.
    pub authorization_used: Option<bool>,
    /// `name()`; `None` if the asset does not answer it. Asked, like the two below, only where the payment
    /// cannot be made.
    pub token_name: Option<String>,
    /// `version()`; `None` if the asset does not answer it.
    pub token_version: Option<String>,
    /// `balanceOf(payer)`; `None` if the asset does not answer it.
    pub balance: Option<Amount>,
}

impl ChainSnapshot {
    /// Whether the call would succeed, and on an authorization that the asset keeps: a contract that
    /// accepts every call "succeeds" too, and only an unused authorization can have moved money.
    pub fn shows_payment(&self) -> bool {
        self.simulation == Simulation::Succeeds && self.authorization_used == Some(false)
    }
}

/// The outcome of executing the settlement call without recording it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Simulation {
    /// It would move the money.
    Succeeds,
    /// It would revert, and this is the contract's or the node's word for why.
    Reverts(String),
}

/// A payment that passed every check. Only [`against`] makes one, so holding one is the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    terms: Terms,
    block_number: u64,
}

impl Verified {
    /// What was agreed.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The height at which the chain would have executed it.
    pub const fn block_number(&self) -> u64 {
        self.block_number
    }
}

/// Checks terms by the chain's facts in the order of [`InvalidReason`].
pub fn against(terms: Terms, chain: &ChainSnapshot) -> Result<Verified, Refusal> {
    let refuse = |reason, message: String| Err(Refusal::new(reason, message));
    if chain.payer_has_code {
        // The token asks a payer with code whether it signed, and never recovers the signature
        // itself (USDC `SignatureChecker.sol`), so what `terms` recovered proves nothing here.
        return refuse(
            InvalidReason::Signature,
            "the payer is a contract or a delegated account; only externally owned accounts are served"
                .to_owned(),
        );
    }
    if !chain.asset_has_code {
        return refuse(
            InvalidReason::AssetNotDeployed,
            format!("there is no contract at {}", terms.requirements.asset),
        );
    }
    let revert = match &chain.simulation {
        Simulation::Succeeds if chain.shows_payment() && !terms.signature.has_high_s() => {
            return Ok(Verified { block_number: chain.block_number, terms });
        }
        Simulation::Succeeds => "the call does not revert, and cannot have moved the money",
        Simulation::Reverts(message) => message,
    };
    match chain.authorization_used {
        None => {
            return refuse(
                InvalidReason::Eip3009NotSupported,
                "the asset does not answer authorizationState".to_owned(),
            );
        }
        Some(true) => {
            return refuse(
                InvalidReason::NonceAlreadyUsed,
                "the authorization was used or cancelled".to_owned(),
            );
        }
        Some(false) => (),
    }
    let differs = |on_chain: &Option<String>, given: &str| {
        on_chain.as_ref().filter(|name| name.as_str() != given).cloned()
    };
    if let Some(name) = differs(&chain.token_name, &terms.token_domain.name) {
        return refuse(InvalidReason::TokenNameMismatch, format!("the token's name is {name:?}"));
    }
    if let Some(version) = differs(&chain.token_version, &terms.token_domain.version) {
        return refuse(
            InvalidReason::TokenVersionMismatch,
            format!("the token's version is {version:?}"),
        );
    }
    match chain.balance {
        Some(balance) if balance < terms.authorization.amount => refuse(
            InvalidReason::InsufficientBalance,
            format!("the payer holds {balance} of {}", terms.authorization.amount),
        ),
        _ => refuse(InvalidReason::SimulationFailed, revert.to_owned()),
    }
}
