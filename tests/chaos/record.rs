//! What a run leaves behind: plain rows, read by the checker and by nothing else.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256};
use uuid::Uuid;

/// Everything that the checker knows. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Every request of every client.
    pub(crate) history: Vec<Asked>,
    /// The canonical blocks at the end, by number, from below the first of the run.
    pub(crate) blocks: Vec<Block>,
    /// The blocks that reorganizations removed, as they stood then.
    pub(crate) orphaned: Vec<Block>,
    pub(crate) books: Books,
    /// What the proxies were handed.
    pub(crate) sent: Vec<Sent>,
    pub(crate) asset: Address,
    /// The accounts that pay gas, with what they held before and after.
    pub(crate) balances_wei: BTreeMap<Address, (U256, U256)>,
    /// How much more the payee holds.
    pub(crate) payee: Address,
    pub(crate) payee_gain: U256,
}

/// What makes a payment one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Identity {
    pub(crate) payer: Address,
    pub(crate) nonce: B256,
}

/// One request, and what its caller heard.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) identity: Identity,
    /// Which of the callers that present this payment.
    pub(crate) caller: usize,
    pub(crate) key: Option<String>,
    pub(crate) wait_for: Tier,
    pub(crate) replica: usize,
    pub(crate) at_ms: u64,
    pub(crate) ended_ms: u64,
    pub(crate) heard: Heard,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Paid {
        transaction_hash: B256,
        is_replay: bool,
    },
    /// `duplicate_settlement`.
    Duplicate,
    /// Any other reason.
    Refused(String),
    /// `settlement_pending`.
    Pending,
    /// 503, and when to come back.
    Unavailable,
    /// Nobody listened.
    Unreachable,
    /// The process died meanwhile.
    CutOff,
    /// The caller went away.
    HungUp,
    /// The connection was lost although the process lived.
    Dropped(String),
    /// Nothing came for longer than SDKs wait.
    Silence,
    /// An answer that no caller should get.
    Strange(String),
}

impl Heard {
    /// Whether the caller asks no more.
    pub(crate) const fn is_terminal(&self) -> bool {
        matches!(self, Self::Paid { .. } | Self::Duplicate | Self::Refused(_) | Self::Strange(_))
    }
}

/// How deep a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Tier {
    #[default]
    Included,
    Safe,
    Finalized,
}

impl Tier {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Included => "included",
            Self::Safe => "safe",
            Self::Finalized => "finalized",
        }
    }

    /// The tier that a status is of, if it is of one.
    pub(crate) fn of(status: &str) -> Option<Self> {
        [Self::Included, Self::Safe, Self::Finalized].into_iter().find(|tier| tier.word() == status)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(crate) hash: B256,
    pub(crate) transactions: Vec<Mined>,
}

/// A transaction in a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mined {
    pub(crate) hash: B256,
    pub(crate) sender: Address,
    pub(crate) account_nonce: u64,
    pub(crate) fee_wei: U256,
    pub(crate) logs: Vec<Log>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) index: u64,
    pub(crate) address: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Vec<u8>,
}

/// A transaction that a proxy was handed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    pub(crate) at_ms: u64,
    pub(crate) hash: B256,
    pub(crate) raw: Vec<u8>,
    pub(crate) was_stored: Option<bool>,
}

/// The rows of Postgres.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    pub(crate) settlements: Vec<Settlement>,
    /// In the order of their ids.
    pub(crate) events: Vec<Event>,
    /// In the order of their ids.
    pub(crate) entries: Vec<Entry>,
    pub(crate) wallets: Vec<Wallet>,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) attempts: Vec<Attempt>,
    /// Evidence that stands.
    pub(crate) evidence: Vec<Evidence>,
    /// Epochs by the names of their leases.
    pub(crate) epochs: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Settlement {
    pub(crate) id: Uuid,
    pub(crate) identity: Identity,
    pub(crate) payee: Address,
    pub(crate) amount: U256,
    pub(crate) valid_before_s: u64,
    pub(crate) status: String,
    pub(crate) transaction_hash: Option<B256>,
    pub(crate) block_hash: Option<B256>,
    pub(crate) n_transactions: i32,
    pub(crate) n_alone: i32,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Event {
    pub(crate) settlement: Uuid,
    pub(crate) to: String,
    pub(crate) transaction_hash: Option<B256>,
    pub(crate) detail: Option<String>,
    pub(crate) at_ms: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) settlement: Uuid,
    pub(crate) is_gas: bool,
    pub(crate) kind: String,
    pub(crate) debit: String,
    pub(crate) credit: String,
    pub(crate) amount: U256,
    pub(crate) transaction: Option<i64>,
    pub(crate) block_hash: Option<B256>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Wallet {
    pub(crate) id: i32,
    pub(crate) address: Address,
    pub(crate) status: String,
    pub(crate) next_account_nonce: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Transaction {
    pub(crate) id: i64,
    pub(crate) wallet: i32,
    pub(crate) account_nonce: u64,
    pub(crate) status: String,
    pub(crate) epoch: i64,
    pub(crate) mined_hash: Option<B256>,
    /// Whom it carries.
    pub(crate) settlements: Vec<Uuid>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Attempt {
    pub(crate) hash: B256,
    pub(crate) transaction: i64,
    pub(crate) raw: Vec<u8>,
    pub(crate) gas_limit: u64,
    pub(crate) fee_wei_max: u128,
    pub(crate) created_ms: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) settlement: Uuid,
    pub(crate) block_hash: B256,
    pub(crate) log_index: u64,
    pub(crate) transaction_hash: B256,
    pub(crate) by_us: bool,
}
