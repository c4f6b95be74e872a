//! The use cases: verify a payment, settle it, say what is supported.
//!
//! Knows the order of things and who may be told what. Does not know HTTP, and never decides from a
//! node's answer that a payment failed.

mod caps;
mod coalesce;
mod denied;
mod error;
mod house;
mod listing;
mod oracle;
mod promised;
mod settle;
mod signature;
mod spending;
mod verdicts;
mod verify;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy::primitives::Address;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::{
    db,
    domain::{ChainId, InvalidReason, KeyMode, Refusal, Requirements, Scheme, X402Version},
    engine::{Engine, Outcomes},
    limits::Forecast,
    merchants::Caller,
    policies::KnownAccounts,
    protocol::Supported,
    telemetry::causes,
    verify::Factories,
};

use settle::Turns;
use verdicts::Verdicts;

pub use coalesce::Coalescer;
pub use denied::Deniers;
pub use error::FacilitatorError;
pub use listing::{Listing, N_CHANGED_MAX};
pub use oracle::Oracle;
pub use promised::{Announced, Promises};
pub use settle::SettleOutcome;
pub use signature::Signed;
pub use spending::{PolicyRejection, report_policy};

/// A chain that is served.
#[derive(Debug, Clone)]
pub struct ServedChain {
    /// What works on it.
    pub engine: Arc<Engine>,
    /// Which keys may use it.
    pub mode: KeyMode,
    /// Whose wallets are deployed for payers.
    pub factories: Factories,
    /// Its sanctions oracle, if there is one.
    oracle: Option<Arc<Oracle>>,
    /// The line of verifications.
    verifications: Arc<Coalescer>,
    verdicts: Arc<Verdicts>,
}

impl ServedChain {
    /// What is served on the chain of `engine`. Somebody has to run its [`Self::verifications`] and its
    /// [`Self::oracle`].
    pub fn new(
        engine: Arc<Engine>,
        mode: KeyMode,
        factories: Factories,
        promises: &Arc<Promises>,
        sanctions_oracle: Option<Address>,
    ) -> Self {
        let chain = engine.chain().clone();
        let oracle = sanctions_oracle.map(|address| Arc::new(Oracle::new(chain.clone(), address)));
        let verifications = Coalescer::new(chain, Arc::clone(promises), oracle.clone());
        let verifications = Arc::new(verifications);
        Self { engine, mode, factories, oracle, verifications, verdicts: Arc::default() }
    }

    /// The line in front of its sanctions oracle, if it has one.
    pub fn oracle(&self) -> Option<Arc<Oracle>> {
        self.oracle.clone()
    }

    /// The line of verifications.
    pub fn verifications(&self) -> Arc<Coalescer> {
        Arc::clone(&self.verifications)
    }
}

/// Answers merchants. One per process.
#[derive(Debug)]
pub struct Facilitator {
    pool: PgPool,
    chains: BTreeMap<ChainId, ServedChain>,
    outcomes: Outcomes,
    promises: Arc<Promises>,
    deniers: Deniers,
    settle_wait: Duration,
    turns: Turns,
    forecast: Forecast,
    policies: KnownAccounts,
    /// The places of those whose signatures are judged.
    judging: Semaphore,
}

impl Facilitator {
    /// Puts a facilitator together.
    pub fn new(
        pool: PgPool,
        chains: BTreeMap<ChainId, ServedChain>,
        outcomes: Outcomes,
        promises: Arc<Promises>,
        deniers: Deniers,
        settle_wait: Duration,
    ) -> Self {
        let forecast = Forecast::new(pool.clone());
        let policies = KnownAccounts::new(pool.clone());
        let judging = Semaphore::new(spending::N_JUDGED_MAX);
        Self {
            pool,
            chains,
            outcomes,
            promises,
            deniers,
            settle_wait,
            turns: Turns::default(),
            forecast,
            policies,
            judging,
        }
    }

    /// What this facilitator does: every configured chain in both versions, whatever their health.
    /// Servers read it once at their start, and a kind that is missing then stops them.
    pub fn supported(&self) -> Supported {
        let kinds = self.chains.keys().flat_map(|chain_id| {
            [X402Version::V2, X402Version::V1].map(|version| (version, Scheme::Exact, *chain_id))
        });
        let signers = self.chains.values().flat_map(|chain| chain.engine.addresses());
        Supported::of(kinds, signers.collect())
    }

    /// What keeps payments from being settled, in a sentence each; empty when nothing does.
    pub async fn troubles(&self) -> Vec<String> {
        let of_chain = |(chain_id, chain): (&ChainId, &ServedChain)| {
            let trouble = chain.engine.health().trouble?;
            Some(format!("{chain_id}: {trouble}"))
        };
        let mut troubles: Vec<String> = self.chains.iter().filter_map(of_chain).collect();
        troubles.extend(self.deniers.sanctions.as_ref().and_then(|sanctions| sanctions.trouble()));
        if let Err(error) = db::ping(&self.pool).await {
            tracing::warn!(error = causes(&error), "the database does not answer");
            troubles.push("the database does not answer".to_owned());
        }
        troubles
    }

    fn served(&self, chain_id: ChainId) -> Result<&ServedChain, Refusal> {
        self.chains.get(&chain_id).ok_or_else(|| {
            let served: Vec<String> = self.chains.keys().map(ChainId::to_string).collect();
            let message = format!("{chain_id} is not served here; served: {}", served.join(", "));
            Refusal::new(InvalidReason::Network, message)
        })
    }
}

/// Refuses assets that the merchant may not be paid in, and addresses where it may not be paid.
fn check_allowed(caller: &Caller, requirements: &Requirements) -> Result<(), Refusal> {
    let Requirements { chain_id, asset, payee, .. } = requirements;
    let refused = |message| Err(Refusal::new(InvalidReason::PaymentRequirements, message));
    if !caller.assets.allow(*chain_id, *asset) {
        return refused(format!(
            "{chain_id}/{asset} is not among the assets that this merchant may be paid in"
        ));
    }
    if !caller.payees.allow(*chain_id, *payee) {
        return refused(format!(
            "{payee} is not among the addresses at which this merchant may be paid on {chain_id}"
        ));
    }
    Ok(())
}

fn check_mode(caller: &Caller, chain: &ServedChain) -> Result<(), FacilitatorError> {
    if caller.mode == chain.mode {
        return Ok(());
    }
    Err(FacilitatorError::WrongMode { key: caller.mode, chain: chain.mode })
}
