//! The hot wallet's key, and what it signs.

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::eip2718::{Decodable2718, Encodable2718},
    network::TxSignerSync,
    primitives::{Address, B256, Bytes, TxKind, U256},
    signers::local::PrivateKeySigner,
};
use secrecy::{ExposeSecret, SecretString};

use crate::domain::ChainId;

use super::{error::EngineError, policy::fees::Fees};

/// An account that pays gas. Its key stays in memory and never prints.
#[derive(Debug, Clone)]
pub struct Wallet {
    signer: PrivateKeySigner,
}

/// The configured key is not 32 bytes of hex that make a secp256k1 key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a wallet's private key is 64 hex digits, with or without 0x")]
pub struct InvalidWalletKey;

impl Wallet {
    pub(super) const fn new(signer: PrivateKeySigner) -> Self {
        Self { signer }
    }

    /// Reads a private key in hex.
    pub fn from_private_key(key: &SecretString) -> Result<Self, InvalidWalletKey> {
        let signer = key.expose_secret().trim().parse().map_err(|_| InvalidWalletKey)?;
        Ok(Self { signer })
    }

    /// The account.
    pub const fn address(&self) -> Address {
        self.signer.address()
    }

    pub(super) fn sign(&self, call: &Call) -> Result<Signed, EngineError> {
        let mut envelope = TxEip1559 {
            chain_id: call.chain_id.eip155(),
            nonce: call.account_nonce,
            gas_limit: call.gas_limit,
            max_fee_per_gas: call.fees.fee_wei_max,
            max_priority_fee_per_gas: call.fees.priority_fee_wei_max,
            to: TxKind::Call(call.to),
            value: U256::ZERO,
            access_list: alloy::eips::eip2930::AccessList::default(),
            input: call.data.clone(),
        };
        let signature = self
            .signer
            .sign_transaction_sync(&mut envelope)
            .map_err(|source| EngineError::Sign { address: self.address(), source })?;
        let signed = TxEnvelope::from(envelope.into_signed(signature));
        Ok(Signed { hash: *signed.tx_hash(), raw: signed.encoded_2718() })
    }
}

/// What signed bytes of ours are to do: the call of an earlier attempt.
pub(super) fn call_of(raw: &[u8]) -> Result<(Address, Bytes, u64), EngineError> {
    let envelope =
        TxEnvelope::decode_2718_exact(raw).map_err(|_| EngineError::UnreadableAttempt)?;
    let call = envelope.as_eip1559().map(alloy::consensus::Signed::tx);
    let call = call.ok_or(EngineError::UnreadableAttempt)?;
    let to = call.to.to().copied().ok_or(EngineError::UnreadableAttempt)?;
    Ok((to, call.input.clone(), call.gas_limit))
}

/// What a transaction is to do.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) chain_id: ChainId,
    pub(super) account_nonce: u64,
    pub(super) to: Address,
    pub(super) data: Bytes,
    pub(super) gas_limit: u64,
    pub(super) fees: Fees,
}

/// One signed envelope.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) hash: B256,
    pub(super) raw: Vec<u8>,
}
