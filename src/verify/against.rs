//! The checks that the chain's facts decide.

use alloy::primitives::B256;

use crate::domain::{Amount, InvalidReason, PayerKind, PaymentRequest, Refusal, UnixTime};

use super::{Consent, Terms, digest::domain_separator, terms::check_time};

/// What the chain says about one payment, all of it at one block. Plain facts, no judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSnapshot {
    /// The height that every fact below is of.
    pub block_number: u64,
    /// The time of that block.
    pub block_time: UnixTime,
    /// Whether the payer is a contract or an EIP-7702 delegated account.
    pub payer_has_code: bool,
    /// Whether there is a contract at the asset's address.
    pub asset_has_code: bool,
    /// What the exact settlement call would do.
    pub simulation: Simulation,
    /// Whether the payer's code accepts the signature, asked only where the call does not succeed.
    pub signature_accepted: bool,
    /// `authorizationState(payer, nonce)`; `None` if the asset does not answer it.
    pub authorization_used: Option<bool>,
    /// `name()`; `None` if the asset does not answer it.
    pub token_name: Option<String>,
    /// `version()`; `None` if the asset does not answer it.
    pub token_version: Option<String>,
    /// `DOMAIN_SEPARATOR()`; `None` if the asset does not answer it.
    pub domain_separator: Option<B256>,
    /// `balanceOf(payer)`; `None` if the asset does not answer it.
    pub balance: Option<Amount>,
}

impl ChainSnapshot {
    /// Whether the call would succeed, and on an authorization that the asset keeps: a contract that
    /// accepts every call "succeeds" too, and only an unused authorization can have moved money.
    pub fn shows_payment(&self) -> bool {
        matches!(self.simulation, Simulation::Succeeds { .. })
            && self.authorization_used == Some(false)
    }
}

/// The outcome of executing the settlement call without recording it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Simulation {
    /// It would move the money.
    Succeeds {
        /// The gas it used, the deployment of the payer's wallet included.
        gas_used: u64,
    },
    /// It would revert, and this is the contract's or the node's word for why.
    Reverts(String),
    /// Nobody could have signed it: it was not tried.
    NotTried,
}

/// A payment that passed every check. Only [`against`] makes one, so holding one is the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    terms: Terms,
    payer_kind: PayerKind,
    gas_used: u64,
    balance: Option<Amount>,
    block_number: u64,
    block_time: UnixTime,
}

impl Verified {
    /// What was agreed.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What the payer is, and so who judges its signature.
    pub const fn payer_kind(&self) -> PayerKind {
        self.payer_kind
    }

    /// The gas that the settlement call used, the deployment of the payer's wallet included.
    pub const fn gas_used(&self) -> u64 {
        self.gas_used
    }

    /// The height at which the chain would have executed it.
    pub const fn block_number(&self) -> u64 {
        self.block_number
    }

    /// The time of that block.
    pub const fn block_time(&self) -> UnixTime {
        self.block_time
    }

    /// The same verdict for `request`, if that asks the same, or what time says against it by now. `None`
    /// if it asks something else.
    pub fn renewed(&self, request: &PaymentRequest, now: UnixTime) -> Option<Result<(), Refusal>> {
        let is_same = self.terms.requirements == request.requirements
            && self.terms.authorization == request.payment.authorization
            && self.terms.version == request.version;
        is_same.then(|| check_time(&self.terms.authorization, now))
    }

    /// Whether the payer's balance covers this payment beside `promised`, what else it has promised and no
    /// block has taken yet.
    ///
    /// # Errors
    /// The refusal, if it does not.
    pub fn beside(&self, promised: Amount) -> Result<(), Refusal> {
        let amount = self.terms.authorization.amount;
        let Some(balance) = self.balance else { return Ok(()) };
        let left = balance.base_units().saturating_sub(promised.base_units());
        if left >= amount.base_units() {
            return Ok(());
        }
        refuse(
            InvalidReason::InsufficientBalance,
            format!(
                "the payer holds {balance}, has promised {promised} of it, and {amount} is asked"
            ),
        )
    }
}

/// Checks terms by the chain's facts in the order of [`InvalidReason`].
pub fn against(terms: Terms, chain: &ChainSnapshot) -> Result<Verified, Refusal> {
    let payer_kind = check_signature(&terms, chain)?;
    if let Some(objection) = terms.objection {
        return Err(objection);
    }
    if !chain.asset_has_code {
        return refuse(
            InvalidReason::AssetNotDeployed,
            format!("there is no contract at {}", terms.requirements.asset),
        );
    }
    let has_high_s = payer_kind == PayerKind::Key
        && matches!(&terms.consent, Consent::Key(signature) if signature.has_high_s());
    let revert = match &chain.simulation {
        Simulation::Succeeds { gas_used } if chain.shows_payment() && !has_high_s => {
            return Ok(Verified {
                payer_kind,
                gas_used: *gas_used,
                balance: chain.balance,
                block_number: chain.block_number,
                block_time: chain.block_time,
                terms,
            });
        }
        Simulation::Succeeds { .. } => "the call does not revert, and cannot have moved the money",
        Simulation::Reverts(message) => message,
        Simulation::NotTried => "the call was not tried",
    };
    Err(diagnosis(&terms, chain, revert))
}

/// Who judges the signature, if it was not refused.
fn check_signature(terms: &Terms, chain: &ChainSnapshot) -> Result<PayerKind, Refusal> {
    if chain.payer_has_code {
        // The token asks a payer with code whether it signed, and never recovers the signature itself
        // (USDC `SignatureChecker.sol`), so what was recovered proves nothing here.
        let succeeds = matches!(chain.simulation, Simulation::Succeeds { .. });
        if succeeds || chain.signature_accepted || !chain.asset_has_code {
            return Ok(PayerKind::Contract);
        }
        return refuse(
            InvalidReason::Signature,
            "the payer's contract does not accept the signature (ERC-1271)".to_owned(),
        );
    }
    match &terms.consent {
        Consent::Key(_) => Ok(PayerKind::Key),
        Consent::Contract(_) if terms.lacks_factory => refuse(
            InvalidReason::Eip6492FactoryNotAllowed,
            "the payer's wallet is not deployed, and its factory is not one that is called here"
                .to_owned(),
        ),
        // Whether its wallet will accept it, the simulation shows.
        Consent::Contract(unwrapped) if unwrapped.deployment.is_some() => {
            Ok(PayerKind::Counterfactual)
        }
        Consent::Contract(_) => refuse(
            InvalidReason::Signature,
            "the signature is not the payer's for this token, chain and authorization".to_owned(),
        ),
    }
}

/// Why the call does not pay.
fn diagnosis(terms: &Terms, chain: &ChainSnapshot, revert: &str) -> Refusal {
    match chain.authorization_used {
        None => {
            return Refusal::new(
                InvalidReason::Eip3009NotSupported,
                "the asset does not answer authorizationState",
            );
        }
        Some(true) => {
            return Refusal::new(
                InvalidReason::NonceAlreadyUsed,
                "the authorization was used or cancelled",
            );
        }
        Some(false) => (),
    }
    let differs = |on_chain: &Option<String>, given: &str| {
        on_chain.as_ref().filter(|name| name.as_str() != given).cloned()
    };
    if let Some(name) = differs(&chain.token_name, &terms.token_domain.name) {
        let message = format!("the token's name is {name:?}");
        return Refusal::new(InvalidReason::TokenNameMismatch, message);
    }
    if let Some(version) = differs(&chain.token_version, &terms.token_domain.version) {
        let message = format!("the token's version is {version:?}");
        return Refusal::new(InvalidReason::TokenVersionMismatch, message);
    }
    match chain.balance {
        Some(balance) if balance < terms.authorization.amount => Refusal::new(
            InvalidReason::InsufficientBalance,
            format!("the payer holds {balance} of {}", terms.authorization.amount),
        ),
        _ => Refusal::new(InvalidReason::SimulationFailed, explained(terms, chain, revert)),
    }
}

/// What the contract said, and what it may not have known how to say: that signatures are made over
/// another domain. Names alone do not tell, because a token may sign under others than it shows.
fn explained(terms: &Terms, chain: &ChainSnapshot, revert: &str) -> String {
    let (requirements, domain) = (&terms.requirements, &terms.token_domain);
    let asked = domain_separator(requirements.chain_id, requirements.asset, domain);
    if chain.domain_separator.is_none_or(|on_chain| on_chain == asked) {
        return revert.to_owned();
    }
    format!(
        "{revert}; the token's DOMAIN_SEPARATOR is not that of name {:?}, version {:?} on {}, so it \
         does not know what was signed",
        domain.name, domain.version, requirements.chain_id
    )
}

fn refuse<T>(reason: InvalidReason, message: String) -> Result<T, Refusal> {
    Err(Refusal::new(reason, message))
}
