//! What a wallet's loop remembers between its steps. Lost at a restart, and then everything open is
//! sent again, which is harmless: the bytes are the same.

use std::collections::HashMap;

use alloy::primitives::{B256, U256};
use tokio::time::Instant;

use crate::chain::{FeeFacts, SendAnswer};

use super::{EngineError, Wallet, lease::Lease, store::OpenTransaction};

/// One wallet, its lease, and what was seen of it.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) wallet_id: i32,
    pub(super) wallet: Wallet,
    pub(super) lease: Lease,
    /// How each open transaction was handed over.
    pub(super) sendings: HashMap<i64, Sending>,
    /// What the fee market asked last.
    pub(super) market: Option<Market>,
    /// The account, unless it has to be looked at before anything else.
    pub(super) account: Option<Account>,
    /// Why nothing new is signed, if something speaks against it.
    pub(super) hold: Option<Hold>,
}

/// What speaks against signing anything new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    /// Somebody else seems to use the key.
    Doubt(String),
    /// The wallet cannot pay for its next transaction.
    ShortOfGas(String),
}

impl Hold {
    /// The reason, for people.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Doubt(why) | Self::ShortOfGas(why) => why,
        }
    }
}

/// The fee market, as last seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Market {
    pub(super) seen_at: Instant,
    pub(super) height: u64,
    pub(super) asks: FeeFacts,
}

/// The account on chain, as last seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) seen_at: Instant,
    pub(super) height: u64,
    pub(super) balance_wei: U256,
}

/// How an attempt was handed over.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    pub(super) hash: B256,
    /// The head when it was handed over first, and last.
    pub(super) first_height: u64,
    pub(super) last_height: u64,
    pub(super) answer: SendAnswer,
}

impl Desk {
    pub(super) fn new(wallet_id: i32, wallet: Wallet, lease: Lease) -> Self {
        let sendings = HashMap::new();
        Self { wallet_id, wallet, lease, sendings, market: None, account: None, hold: None }
    }

    /// What ends the work with this wallet: there is nothing left to do.
    pub(super) fn is_given_up(&self) -> EngineError {
        EngineError::LeaseLost { name: self.lease.name.clone() }
    }

    /// Forgets what is not open any more.
    pub(super) fn forget_all_but(&mut self, open: &[OpenTransaction]) {
        self.sendings.retain(|id, _| open.iter().any(|open| open.transaction_id == *id));
    }

    /// Remembers an answer to bytes that were handed over at `height`.
    pub(super) fn note(
        &mut self,
        transaction_id: i64,
        hash: B256,
        height: u64,
        answer: SendAnswer,
    ) {
        let first_height = match self.sendings.get(&transaction_id) {
            Some(sending) if sending.hash == hash => sending.first_height.min(height),
            _ => height,
        };
        let sending = Sending { hash, first_height, last_height: height, answer };
        self.sendings.insert(transaction_id, sending);
    }
}
