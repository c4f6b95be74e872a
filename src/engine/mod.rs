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

mod block;
mod dispatcher;
mod error;
mod fees;
mod follower;
mod health;
mod outcomes;
mod store;
mod verdict;
mod wallet;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;

use crate::{chain::Chain, db::DbError, domain::UnixTime};

use store::Unfinished;

pub use error::EngineError;
pub use fees::{FeeLimits, FeesTooHigh};
pub use health::{Health, HealthReport};
pub use outcomes::{Outcomes, TooManyWaiting, Waiting};
pub use store::latest_attempt;
pub use wallet::{InvalidWalletKey, Wallet};

/// How long one step of a loop may take: dozens of calls to an endpoint, each with its own timeout.
/// A connection that died without a word must not stop a loop for ever.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// How an engine works.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// How many transactions one wallet may have unmined. Nodes guarantee 16 places to an account
    /// (reth `TXPOOL_MAX_ACCOUNT_SLOTS_PER_SENDER`).
    pub n_in_flight_max: usize,
    /// How often the follower asks for a new block while something is unmined.
    pub poll_interval: Duration,
    /// What a transaction offers for gas at most.
    pub fee_limits: FeeLimits,
}

/// One wallet and the block follower of one chain.
#[derive(Debug)]
pub struct Engine {
    chain: Chain,
    pool: PgPool,
    wallet: Wallet,
    options: EngineOptions,
    health: Health,
    /// Wakes the wallet: something was claimed, or a block freed a place.
    work: Notify,
    /// Wakes the follower: something was sent.
    sent: Notify,
    /// Whether anything is unmined, so that blocks are awaited eagerly.
    busy: AtomicBool,
    /// The height that the follower has applied.
    applied_height: AtomicU64,
}

impl Engine {
    /// Puts an engine together. It does nothing until its two loops run.
    pub fn new(chain: Chain, pool: PgPool, wallet: Wallet, options: EngineOptions) -> Self {
        Self {
            chain,
            pool,
            wallet,
            options,
            health: Health::default(),
            work: Notify::new(),
            sent: Notify::new(),
            busy: AtomicBool::new(true),
            applied_height: AtomicU64::new(0),
        }
    }

    /// The chain it works on.
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The wallet it sends from.
    pub const fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// How it is doing.
    pub fn health(&self) -> HealthReport {
        self.health.report()
    }

    /// Says that something was claimed. Losing this costs a second, nothing else.
    pub fn nudge(&self) {
        self.work.notify_one();
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
