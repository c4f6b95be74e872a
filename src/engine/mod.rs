//! Hot wallets and transactions: puts claimed settlements on chain and finds out what became of them.
//!
//! Three facts are kept apart and never inferred from each other. A *settlement* is the promise; a
//! *transaction* with its *attempts* is what was signed for one account nonce; *evidence* is what a
//! canonical block says. Signed bytes are stored before they are sent, and from then on the outcome
//! is unknown until a block says otherwise: no answer of a node decides anything.
//!
//! Does not verify requests, does not answer callers and never starts a task of its own.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::float_arithmetic
    )
)]

mod calls;
mod defects;
mod desk;
mod dispatcher;
mod error;
mod follower;
mod health;
mod keys;
mod lease;
mod outcomes;
mod policy;
mod price;
mod sieve;
mod store;
mod verdict;
mod wallet;
mod wallets;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use alloy::primitives::Address;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{chain::Chain, db::DbError, domain::UnixTime};

use price::Price;
use store::Unfinished;

pub use error::EngineError;
pub use health::{Health, HealthReport};
pub use keys::{KeyError, KeySources, Keys, N_MNEMONIC_ACCOUNTS};
pub use outcomes::{Outcomes, TooManyWaiting, Waiting};
pub use policy::{
    fees::{FeeLimits, FeesTooHigh},
    gas::transactions_left,
};
pub use store::{
    WalletRow, WalletStatus, ensure_wallet, latest_attempt, set_wallet_status, wallets,
};
pub use wallet::{InvalidWalletKey, Wallet};
pub use wallets::{register_wallet, reinstate_wallet};

/// How long one step of a loop may take: dozens of calls to an endpoint, each with its own timeout.
/// A connection that died without a word must not stop a loop for ever.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// How many settlements of a chain may wait for a wallet. A minute's work of one wallet; who comes
/// later is told to come back before anything is promised.
const N_QUEUED_MAX: usize = 30_000;

/// How an engine works.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// How many transactions one wallet may have unmined. Nodes guarantee 16 places to an account
    /// (reth `TXPOOL_MAX_ACCOUNT_SLOTS_PER_SENDER`).
    pub n_in_flight_max: usize,
    /// How many settlements may share a transaction, within what the chain allows one.
    pub n_together_max: usize,
    /// Whether the settler is deployed where a batch needs it and it is absent.
    pub deploys_settler: bool,
    /// How often the follower asks for a new block while something is unmined.
    pub poll_interval: Duration,
    /// How long a wallet or a follower is owned without renewal.
    pub lease: Duration,
    /// What a transaction offers for gas at most.
    pub fee_limits: FeeLimits,
}

/// The wallets and the block follower of one chain, as far as this process owns them.
#[derive(Debug)]
pub struct Engine {
    chain: Chain,
    pool: PgPool,
    keys: Arc<Keys>,
    options: EngineOptions,
    /// This process, among all that share the database.
    replica_id: Uuid,
    health: Health,
    /// Changes when wallets should look: something was claimed, or a block freed a place.
    work: watch::Sender<u64>,
    /// Wakes the follower: something was sent.
    sent: Notify,
    /// Asks for a notification to the other processes: they own what has to act.
    hint: Notify,
    /// Whether anything is unmined, so that blocks are awaited eagerly.
    busy: AtomicBool,
    /// Whether this process follows the chain.
    is_following: AtomicBool,
    /// How many wallets of this process sign.
    n_signing: AtomicUsize,
    /// Whether several wallets of the chain sign, so that they must keep out of each other's way.
    is_shared: AtomicBool,
    /// How many settlements wait for a wallet, as last counted.
    n_queued: AtomicUsize,
    /// The height at which the settler was seen; 0 for not yet.
    settler_seen_at: AtomicU64,
    /// The accounts that pay gas, as last read.
    addresses: Mutex<Vec<Address>>,
    /// What gas costs, as last seen for a budget or a floor.
    price: Price,
}

/// So many settlements wait for a wallet already that another would wait too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{N_QUEUED_MAX} settlements are waiting for a wallet already")]
pub struct QueueFull;

impl Engine {
    /// Puts an engine together. It does nothing until its loops run.
    pub fn new(
        chain: Chain,
        pool: PgPool,
        keys: Keys,
        options: EngineOptions,
        replica_id: Uuid,
    ) -> Self {
        let addresses = keys.configured().into_iter().collect();
        Self {
            chain,
            pool,
            keys: Arc::new(keys),
            options,
            replica_id,
            health: Health::default(),
            work: watch::Sender::new(0),
            sent: Notify::new(),
            hint: Notify::new(),
            busy: AtomicBool::new(true),
            is_following: AtomicBool::new(false),
            n_signing: AtomicUsize::new(0),
            is_shared: AtomicBool::new(true),
            n_queued: AtomicUsize::new(0),
            settler_seen_at: AtomicU64::new(0),
            addresses: Mutex::new(addresses),
            price: Price::default(),
        }
    }

    /// The chain it works on.
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The accounts that pay gas: every wallet of the chain that is in use.
    pub fn addresses(&self) -> Vec<Address> {
        self.lock_addresses().clone()
    }

    fn lock_addresses(&self) -> MutexGuard<'_, Vec<Address>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is doing.
    pub fn health(&self) -> HealthReport {
        self.health.report()
    }

    /// Whether there is room for another settlement.
    ///
    /// # Errors
    /// When too many wait already. Counted once a second, so the limit is a little soft.
    pub fn admit(&self) -> Result<(), QueueFull> {
        if self.n_queued.load(Ordering::Relaxed) >= N_QUEUED_MAX { Err(QueueFull) } else { Ok(()) }
    }

    /// Says that something was claimed here. Losing this costs a second, nothing else.
    pub fn nudge(&self) {
        self.wake_wallets();
        if self.n_signing.load(Ordering::Relaxed) == 0 {
            self.hint.notify_one();
        }
    }

    /// Says that another process changed something on this chain.
    fn heard(&self) {
        self.wake_wallets();
        self.expect_blocks();
    }

    fn wake_wallets(&self) {
        self.work.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// `step`, given up if it takes too long. Every step can be: what is not committed is rolled back,
    /// and what was stored is sent again.
    async fn bounded<T>(
        step: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        tokio::time::timeout(STEP_TIMEOUT, step)
            .await
            .unwrap_or(Err(EngineError::Stalled { seconds: STEP_TIMEOUT.as_secs() }))
    }

    /// Something is unmined: blocks are awaited eagerly from now on.
    fn expect_blocks(&self) {
        self.busy.store(true, Ordering::SeqCst);
        self.sent.notify_one();
    }

    /// Asks the books whether anything is unmined.
    async fn look_for_work(
        &self,
        conn: &mut PgConnection,
        block_time: UnixTime,
    ) -> Result<Unfinished, DbError> {
        // Cleared before the question: what is stored after it sets the flag by itself.
        self.busy.store(false, Ordering::SeqCst);
        let unfinished = store::unfinished(conn, self.chain.chain_id(), block_time).await?;
        if unfinished.is_busy {
            self.busy.store(true, Ordering::SeqCst);
        }
        Ok(unfinished)
    }
}
