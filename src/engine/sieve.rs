//! Which of the waiting settlements can be paid now: asked of the chain again where verification was a
//! while ago.

use crate::{
    chain::{Block, BlockId, Question},
    db::During,
    domain::{SettlementId, SettlementStatus},
    faults::crash_point,
    ledger::{self, Proof, Settlement},
    telemetry::causes,
};

use super::{
    Engine, EngineError,
    calls::question,
    desk::Desk,
    dispatcher::NOT_NOW_DELAY,
    outcomes,
    policy::verdict::by_snapshot,
    store::{self, Queued},
    verdict::{Verdict, examine},
};

/// How many settlements that cannot be sent are looked into at a time, one by one.
const N_EXAMINED_MAX: usize = 16;

impl Engine {
    /// Keeps what can be paid now. What was verified a moment ago is trusted; the others are tried
    /// together, and what fails there is looked into alone.
    pub(super) async fn sieve(
        &self,
        desk: &Desk,
        queued: &[Queued],
        settlements: Vec<Settlement>,
    ) -> Result<Vec<(Queued, Settlement)>, EngineError> {
        let mut kept: Vec<(Queued, Settlement)> = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let id = settlement.settlement_id;
            if let Some(queued) = queued.iter().find(|queued| queued.settlement_id == id) {
                kept.push((*queued, settlement));
            }
        }
        let stale: Vec<&Settlement> = kept
            .iter()
            .filter(|(queued, _)| !queued.is_fresh)
            .map(|(_, settlement)| settlement)
            .collect();
        if stale.is_empty() {
            return Ok(kept);
        }
        let succeeds = match stale.len() {
            // One is looked into at once.
            1 => vec![false],
            _ => self.glance(&stale).await,
        };
        crash_point("preflight.after");
        let (mut tried, mut n_examined) = (succeeds.into_iter(), 0_usize);
        let mut payable = Vec::with_capacity(kept.len());
        for (queued, settlement) in kept {
            if !queued.is_fresh && !tried.next().unwrap_or(false) {
                if n_examined >= N_EXAMINED_MAX {
                    continue;
                }
                n_examined = n_examined.saturating_add(1);
                if !self.is_still_payable(desk, &settlement).await? {
                    continue;
                }
            }
            payable.push((queued, settlement));
        }
        Ok(payable)
    }

    /// Which of `stale` the newest block would pay. A `false` may be payable all the same: this is a sieve,
    /// not a verdict.
    async fn glance(&self, stale: &[&Settlement]) -> Vec<bool> {
        let questions: Vec<Question> =
            stale.iter().map(|settlement| question(settlement)).collect();
        match self.chain.look(&questions, BlockId::latest()).await {
            Ok(seen) => {
                let judged = seen.iter().zip(stale).map(|(snapshot, settlement)| {
                    let verdict = by_snapshot(settlement, snapshot, snapshot.block_time);
                    verdict == Some(Verdict::Payable)
                });
                judged.collect()
            }
            Err(error) => {
                tracing::warn!(error = causes(&error), "could not look at a batch");
                vec![false; stale.len()]
            }
        }
    }

    /// Looks at an old claim once more before it is signed for. What proves it paid or unpayable is
    /// written; what cannot be told is left for later.
    async fn is_still_payable(
        &self,
        desk: &Desk,
        settlement: &Settlement,
    ) -> Result<bool, EngineError> {
        let settlement_id = settlement.settlement_id;
        let examined = match self.applied_tip(settlement).await? {
            Some(block) => examine(&self.chain, settlement, &block).await,
            None => return self.postpone(settlement_id).await,
        };
        let verdict = match examined {
            Ok(Verdict::Payable) => return Ok(true),
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::warn!(
                    error = causes(&error), settlement.id = %settlement_id, "could not look into a settlement"
                );
                return self.postpone(settlement_id).await;
            }
        };
        let chain_id = self.chain.chain_id();
        let mut db = self.pool.begin().await.during("settle what was found")?;
        desk.lease.hold(&mut db).await?;
        let is_written = match verdict {
            Verdict::Refused(refusal) => {
                let expected = [SettlementStatus::Claimed];
                ledger::fail(&mut db, settlement_id, &expected, &refusal).await?
            }
            // In a block above the applied head, the follower will find it by itself.
            Verdict::Paid(evidence) => {
                let proof = Proof { settlement_id, evidence, by_us: false };
                store::is_canonical(&mut db, chain_id, &evidence).await?
                    && !ledger::include(&mut db, chain_id, &[proof]).await?.is_empty()
            }
            Verdict::Payable | Verdict::NotNow(_) => false,
        };
        if !is_written {
            drop(db);
            return self.postpone(settlement_id).await;
        }
        outcomes::announce(&mut db, chain_id).await?;
        db.commit().await.during("settle what was found")?;
        tracing::info!(settlement.id = %settlement_id, "a settlement was decided unsent");
        Ok(false)
    }

    /// The block that was applied last, unless it is older than the one that verification saw: a
    /// lagging node knows of less money than the payer has.
    async fn applied_tip(&self, settlement: &Settlement) -> Result<Option<Block>, EngineError> {
        let mut conn = self.pool.acquire().await.during("read the applied head")?;
        let tip = store::tip(&mut conn, self.chain.chain_id()).await?;
        drop(conn);
        let Some(tip) = tip.filter(|tip| tip.number >= settlement.verified_block) else {
            return Ok(None);
        };
        let block = self.chain.block_at(tip.number).await?;
        Ok(block.filter(|block| block.hash == tip.hash))
    }

    async fn postpone(&self, settlement_id: SettlementId) -> Result<bool, EngineError> {
        let mut conn = self.pool.acquire().await.during("postpone a settlement")?;
        store::postpone(&mut conn, settlement_id, NOT_NOW_DELAY).await?;
        Ok(false)
    }
}
