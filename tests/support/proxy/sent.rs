//! What a proxy remembers of the transactions that it was handed.

use std::time::SystemTime;

use alloy::{
    consensus::{Transaction as _, TxEnvelope, transaction::SignerRecoverable as _},
    eips::eip2718::Decodable2718 as _,
    hex,
    primitives::{Address, B256, keccak256},
};

/// One `eth_sendRawTransaction` that arrived.
#[derive(Debug, Clone)]
pub struct Sent {
    /// When it arrived.
    pub at: SystemTime,
    /// The bytes, in hex.
    pub raw: String,
    pub hash: B256,
    /// What it says; nothing if the bytes are no transaction.
    pub envelope: Option<Envelope>,
    /// Whether the books held these bytes when they arrived; nothing if the books were not asked
    /// or did not answer.
    pub was_stored: Option<bool>,
    /// How often it was handed on to the node.
    pub n_forwarded: u32,
}

/// What a signed transaction says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    pub sender: Address,
    pub account_nonce: u64,
    pub gas_limit: u64,
    pub fee_wei_max: u128,
    pub priority_fee_wei_max: u128,
}

impl Sent {
    #[allow(clippy::disallowed_methods, reason = "a log tells the time of day")]
    pub(super) fn now(raw: &str) -> Self {
        let bytes = hex::decode(raw).unwrap_or_default();
        Self {
            at: SystemTime::now(),
            raw: raw.to_owned(),
            hash: keccak256(&bytes),
            envelope: Envelope::read(&bytes),
            was_stored: None,
            n_forwarded: 0,
        }
    }

    /// The length of the transaction.
    pub(super) fn n_bytes(&self) -> usize {
        self.raw.trim_start_matches("0x").len() / 2
    }
}

impl Envelope {
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let envelope = TxEnvelope::decode_2718(&mut bytes).ok()?;
        Some(Self {
            sender: envelope.recover_signer().ok()?,
            account_nonce: envelope.nonce(),
            gas_limit: envelope.gas_limit(),
            fee_wei_max: envelope.max_fee_per_gas(),
            priority_fee_wei_max: envelope.max_priority_fee_per_gas().unwrap_or_default(),
        })
    }

    /// Whether nodes let this take the place of `other`: ten per cent more on both fields, as
    /// geth's `list.Add` counts them.
    pub fn may_replace(&self, other: &Self) -> bool {
        let suffices = |new: u128, old: u128| new > old && new >= old * 110 / 100;
        suffices(self.fee_wei_max, other.fee_wei_max)
            && suffices(self.priority_fee_wei_max, other.priority_fee_wei_max)
    }
}
