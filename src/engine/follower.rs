//! The block follower: reads every block once, in order, and writes what it proves.
//!
//! One process follows a chain at a time, by its lease. A block is applied in one database transaction
//! that moves the head from its parent to it, so each block counts once. Reorganizations are found by parent hash; a
//! height alone proves nothing.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::atomic::Ordering,
    time::Duration,
};

use alloy::primitives::B256;
use futures_util::{FutureExt, future::try_join_all};
use sqlx::PgConnection;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Block, ChainError, Receipt, TokenEvent},
    db::During,
    domain::{SettlementId, SettlementStatus, UnixTime},
    faults::{Defect, crash_point, has_defect},
    ledger::{self, GasShare, Proof},
    telemetry::causes,
};

use super::{
    Engine, EngineError,
    lease::Lease,
    outcomes,
    policy::{
        batch::company_after,
        block::{BlockFacts, Decisions, decide, gas_shares},
    },
    store::{self, Tip},
    verdict::{Verdict, examine},
};

/// How often a new block is looked for while nothing is unmined.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How many blocks the follower may be behind and still count as well: their callers still wait.
const N_BEHIND_MAX: u64 = 8;
/// How many blocks below the first that was read are read after all when that one is replaced:
/// deeper reorganizations are not expected before finality.
const N_UNREAD_MAX: u64 = 64;
/// How long the follower rests after trouble.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often the safe and finalized heights are asked for while something waits for them.
const PROMOTION_INTERVAL: Duration = Duration::from_secs(4);

/// What one look at the chain came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The head moved; there may be more.
    Moved,
    /// The head is the newest block.
    UpToDate,
    /// The endpoint knows less than was read already.
    Behind,
}

impl Engine {
    /// Follows the chain until `stop`, whenever no other process does.
    pub async fn run_follower(&self, stop: &CancellationToken) {
        let name = format!("follower:{}", self.chain.chain_id());
        while !stop.is_cancelled() {
            match Self::bounded(self.acquire(&name)).await {
                Ok(Some(lease)) => {
                    self.is_following.store(true, Ordering::SeqCst);
                    tokio::select! {
                        () = self.keep(&lease) => (),
                        () = self.follow_until(&lease, stop) => (),
                    }
                    self.is_following.store(false, Ordering::SeqCst);
                    self.release(&lease).await;
                }
                // Another process follows; ours needs the chain for verification all the same.
                Ok(None) => match self.chain.latest_block().await {
                    Ok(_) => self.health.follower_succeeded(),
                    Err(error) => self.health.follower_failed(error.to_string()),
                },
                Err(error) => {
                    tracing::warn!(error = causes(&error), "could not take the follower's lease");
                    self.health.follower_failed(error.to_string());
                }
            }
            tokio::select! {
                () = stop.cancelled() => (),
                () = tokio::time::sleep(IDLE_POLL_INTERVAL) => (),
            }
        }
    }

    async fn follow_until(&self, lease: &Lease, stop: &CancellationToken) {
        let mut promoted_at = None;
        while !stop.is_cancelled() {
            let step = AssertUnwindSafe(Self::bounded(self.follow(lease, &mut promoted_at)));
            let pause = match step.catch_unwind().await.unwrap_or(Err(EngineError::Panicked)) {
                Ok(Step::Moved) => continue,
                Ok(Step::Behind) => IDLE_POLL_INTERVAL,
                Ok(Step::UpToDate) if self.busy.load(Ordering::SeqCst) => {
                    self.options.poll_interval
                }
                Ok(Step::UpToDate) => IDLE_POLL_INTERVAL,
                Err(EngineError::LeaseLost { .. }) => return,
                Err(error) => {
                    tracing::warn!(
                        error = causes(&error), chain.id = %self.chain.chain_id(), "the follower could not go on"
                    );
                    self.health.follower_failed(error.to_string());
                    RETRY_INTERVAL
                }
            };
            tokio::select! {
                () = stop.cancelled() => (),
                () = self.sent.notified(), if pause > self.options.poll_interval => (),
                () = tokio::time::sleep(pause) => (),
            }
        }
    }

    async fn follow(
        &self,
        lease: &Lease,
        promoted_at: &mut Option<Instant>,
    ) -> Result<Step, EngineError> {
        let latest = self.chain.latest_block().await?;
        let chain_id = self.chain.chain_id();
        let mut conn = self.pool.acquire().await.during("read the applied head")?;
        let Some(tip) = store::tip(&mut conn, chain_id).await? else {
            drop(conn);
            return self.start_at(lease, &latest).await;
        };
        if latest.hash == tip.hash {
            drop(conn);
            self.promote_if_due(lease, tip, latest.timestamp, promoted_at).await?;
            self.health.follower_succeeded();
            return Ok(Step::UpToDate);
        }
        if latest.number <= tip.number {
            let ours = store::applied_block(&mut conn, chain_id, latest.number).await?;
            drop(conn);
            if ours.is_none_or(|hash| hash == latest.hash) {
                // The endpoint lags behind what was applied. That is no reorganization.
                self.health.follower_failed(format!(
                    "the endpoint is at block {}, behind block {} that was read",
                    latest.number, tip.number
                ));
                return Ok(Step::Behind);
            }
            return self.unwind(lease, tip, latest.number).await;
        }
        if latest.parent_hash != tip.hash
            && store::unfinished(&mut conn, chain_id, latest.timestamp).await?.is_nothing()
        {
            drop(conn);
            let from = self.chain.block_at(tip.number).await?;
            if let Some(from) = from.filter(|from| from.hash == tip.hash)
                && self.jump(lease, tip, from.timestamp, &latest).await?
            {
                return Ok(Step::Moved);
            }
        } else {
            drop(conn);
        }
        let (next_number, latest_number) = (tip.number.saturating_add(1), latest.number);
        let next = if latest_number == next_number {
            Some(latest)
        } else {
            self.chain.block_at(next_number).await?
        };
        let ignores_parents = has_defect(Defect::ReorgByHeight);
        match next {
            Some(next) if next.parent_hash == tip.hash || ignores_parents => {
                self.apply(lease, tip, &next).await?
            }
            Some(_) => return self.unwind(lease, tip, latest_number).await,
            None => {
                let what = format!("it has no block {next_number}");
                return Err(self.chain.contradiction(what).into());
            }
        }
        let n_behind = latest_number.saturating_sub(next_number);
        if n_behind <= N_BEHIND_MAX {
            self.health.follower_succeeded();
        } else {
            self.health.follower_failed(format!("{n_behind} blocks are yet to be read"));
        }
        Ok(Step::Moved)
    }

    async fn start_at(&self, lease: &Lease, block: &Block) -> Result<Step, EngineError> {
        // A height of another chain, once recorded, would make this chain look as if it lagged.
        self.chain.check().await?;
        let mut db = self.pool.begin().await.during("start following a chain")?;
        lease.hold(&mut db).await?;
        store::start_at(&mut db, self.chain.chain_id(), block).await?;
        db.commit().await.during("start following a chain")?;
        self.wake_wallets();
        Ok(Step::Moved)
    }

    /// Passes over blocks that can concern nobody: nothing is unfinished, and what failed had expired
    /// before the first of them, `since` when nothing was read. `false` if one might.
    async fn jump(
        &self,
        lease: &Lease,
        tip: Tip,
        since: UnixTime,
        block: &Block,
    ) -> Result<bool, EngineError> {
        self.chain.check().await?;
        let chain_id = self.chain.chain_id();
        let mut db = self.pool.begin().await.during("pass over blocks")?;
        lease.hold(&mut db).await?;
        // Asked again with the head held: somebody may have applied a block or claimed a payment.
        let may_jump = store::hold_tip(&mut db, chain_id, tip).await?
            && store::unfinished(&mut db, chain_id, since).await?.is_nothing();
        if may_jump {
            store::start_at(&mut db, chain_id, block).await?;
            db.commit().await.during("pass over blocks")?;
        }
        Ok(may_jump)
    }

    /// Reads what `block` holds, decides, and writes it all in one database transaction.
    async fn apply(&self, lease: &Lease, tip: Tip, block: &Block) -> Result<(), EngineError> {
        let facts = self.gather(block).await?;
        let mut decisions = decide(&facts);
        let mut requeued = Vec::new();
        for settlement in &facts.settlements {
            let settlement_id = settlement.settlement_id;
            if !decisions.unclear.contains(&settlement_id) {
                continue;
            }
            match examine(&self.chain, settlement, block).await {
                Ok(Verdict::Paid(evidence)) => {
                    decisions.paid.push(Proof { settlement_id, evidence, by_us: false });
                }
                Ok(Verdict::Refused(refusal)) => decisions.refused.push((settlement_id, refusal)),
                Ok(Verdict::Payable | Verdict::NotNow(_)) => requeued.push(settlement_id),
                // Trouble with one settlement is no trouble with the block. It is examined again: by
                // the wallet before it signs, and here once it has expired.
                Err(error) => {
                    tracing::warn!(
                        error = causes(&error), settlement.id = %settlement_id, "could not look into a settlement"
                    );
                    requeued.push(settlement_id);
                }
            }
        }
        let mut db = self.pool.begin().await.during("apply a block")?;
        lease.hold(&mut db).await?;
        if !store::advance(&mut db, self.chain.chain_id(), block, tip.hash).await? {
            // The head was moved meanwhile; it is read again.
            return Ok(());
        }
        self.write(&mut db, &facts, &decisions, &requeued).await?;
        self.look_for_work(&mut db, block.timestamp).await?;
        crash_point("block.before_commit");
        db.commit().await.during("apply a block")?;
        crash_point("block.after_commit");

        self.wake_wallets();
        report(block, &decisions);
        Ok(())
    }

    async fn gather(&self, block: &Block) -> Result<BlockFacts, EngineError> {
        let chain_id = self.chain.chain_id();
        let mut conn = self.pool.acquire().await.during("read what a block may concern")?;
        let assets = store::watched_assets(&mut conn, chain_id, block.timestamp).await?;
        let ours = store::ours_among(&mut conn, chain_id, &block.transaction_hashes).await?;
        let expired = store::expired(&mut conn, chain_id, block.timestamp).await?;
        drop(conn);

        let logs = match assets.as_slice() {
            [] => Vec::new(),
            assets => self.chain.authorization_logs(block.hash, assets).await?,
        };
        let events: Vec<TokenEvent> = logs.iter().filter_map(TokenEvent::read).collect();
        let mut conn = self.pool.acquire().await.during("read what a block may concern")?;
        let touched = store::settlements_of(&mut conn, chain_id, &events).await?;
        let concerned: HashSet<SettlementId> = touched
            .into_iter()
            .chain(ours.iter().flat_map(|mined| mined.settlement_ids.iter().copied()))
            .chain(expired.iter().copied())
            .collect();
        let concerned: Vec<SettlementId> = concerned.into_iter().collect();
        let settlements = ledger::settlements(&mut conn, &concerned).await?;
        drop(conn);

        let is_known = |event: &&TokenEvent| {
            settlements.iter().any(|s| {
                s.asset == event.asset
                    && s.authorization.payer == event.payer
                    && s.authorization.nonce == event.nonce
            })
        };
        let hashes: HashSet<B256> = ours
            .iter()
            .map(|mined| mined.hash)
            .chain(events.iter().filter(is_known).map(|event| event.transaction_hash))
            .collect();
        let receipts =
            try_join_all(hashes.into_iter().map(|hash| self.receipt_in(block, hash))).await?;
        Ok(BlockFacts {
            receipts: receipts.into_iter().collect(),
            ours,
            settlements,
            expired: expired.into_iter().collect(),
        })
    }

    /// The receipt of a transaction that `block` names; any other receipt is a contradiction.
    async fn receipt_in(&self, block: &Block, hash: B256) -> Result<(B256, Receipt), ChainError> {
        match self.chain.receipt(hash).await? {
            Some(receipt) if receipt.block_hash == block.hash => Ok((hash, receipt)),
            other => {
                let found = other.map(|receipt| receipt.block_hash);
                Err(self.chain.contradiction(format!(
                    "block {} holds transaction {hash}, whose receipt is of {found:?}",
                    block.hash
                )))
            }
        }
    }

    async fn write(
        &self,
        conn: &mut PgConnection,
        facts: &BlockFacts,
        decisions: &Decisions,
        requeued: &[SettlementId],
    ) -> Result<(), EngineError> {
        let chain_id = self.chain.chain_id();
        let mut shares = Vec::new();
        for mined in &facts.ours {
            let Some(receipt) = facts.receipts.get(&mined.hash) else { continue };
            store::mark_mined(conn, mined.transaction_id, receipt).await?;
            let parts = gas_shares(receipt.fee_wei, mined.settlement_ids.len());
            shares.extend(mined.settlement_ids.iter().zip(parts).map(
                |(settlement_id, fee_wei)| GasShare {
                    settlement_id: *settlement_id,
                    transaction_id: mined.transaction_id,
                    chain_id,
                    wallet: mined.wallet,
                    fee_wei,
                    block_hash: receipt.block_hash,
                },
            ));
        }
        if !shares.is_empty() {
            ledger::post_gas(conn, &shares).await?;
        }
        self.write_paid(conn, &decisions.paid).await?;
        for (settlement_id, refusal) in &decisions.refused {
            let expected = [SettlementStatus::Claimed, SettlementStatus::Submitted];
            ledger::fail(conn, *settlement_id, &expected, refusal).await?;
        }
        for settlement_id in requeued {
            ledger::requeue(conn, *settlement_id, "mined without moving the money").await?;
        }
        // What was left unpaid travels apart from now on.
        for mined in &facts.ours {
            let left: Vec<SettlementId> =
                mined.settlement_ids.iter().filter(|id| requeued.contains(id)).copied().collect();
            if !left.is_empty() {
                let has_reverted =
                    facts.receipts.get(&mined.hash).is_some_and(|receipt| !receipt.succeeded);
                let n_together = company_after(mined.settlement_ids.len(), has_reverted);
                store::limit_company(conn, &left, n_together).await?;
            }
        }
        if !facts.ours.is_empty() || !decisions.paid.is_empty() || !decisions.refused.is_empty() {
            outcomes::announce(conn, chain_id).await?;
        }
        Ok(())
    }

    async fn write_paid(&self, conn: &mut PgConnection, paid: &[Proof]) -> Result<(), EngineError> {
        let chain_id = self.chain.chain_id();
        let mut standing = Vec::with_capacity(paid.len());
        // Most evidence is of one block, which is asked about once.
        let mut canonical = HashMap::new();
        for proof in paid {
            let block_hash = proof.evidence.block_hash;
            let is_canonical = match canonical.get(&block_hash) {
                Some(is_canonical) => *is_canonical,
                None => store::is_canonical(conn, chain_id, &proof.evidence).await?,
            };
            canonical.insert(block_hash, is_canonical);
            if is_canonical {
                standing.push(*proof);
            } else {
                let why = "paid in a block that was not read";
                ledger::requeue(conn, proof.settlement_id, why).await?;
            }
        }
        ledger::include(conn, chain_id, &standing).await?;
        Ok(())
    }

    /// Goes back to the newest applied block that is still canonical, taking back what the blocks
    /// above it proved. The signed bytes are kept and sent again.
    async fn unwind(
        &self,
        lease: &Lease,
        tip: Tip,
        latest_number: u64,
    ) -> Result<Step, EngineError> {
        // Another chain is no reorganization of this one.
        self.chain.check().await?;
        let chain_id = self.chain.chain_id();
        let ancestor = self.common_ancestor(tip.number.min(latest_number)).await?;
        let mut db = self.pool.begin().await.during("unwind blocks")?;
        lease.hold(&mut db).await?;
        let Some(left) = store::rewind(&mut db, chain_id, tip, &ancestor).await? else {
            return Ok(Step::Moved);
        };
        let reopened = store::reopen(&mut db, chain_id, ancestor.number).await?;
        let n_orphaned = ledger::orphan(&mut db, chain_id, ancestor.number).await?;
        ledger::reverse_gas(&mut db, &reopened, &left).await?;
        outcomes::announce(&mut db, chain_id).await?;
        crash_point("unwind.before_commit");
        db.commit().await.during("unwind blocks")?;
        crash_point("unwind.after_commit");

        tracing::warn!(
            chain.id = %chain_id,
            from = tip.number,
            to = ancestor.number,
            n_transactions = reopened.len(),
            n_settlements = n_orphaned,
            "a reorganization removed blocks"
        );
        metrics::counter!("quittance_reorgs_total", "chain" => chain_id.to_string()).increment(1);
        self.settler_seen_at.store(0, Ordering::Relaxed);
        self.expect_blocks();
        self.wake_wallets();
        Ok(Step::Moved)
    }

    /// The newest canonical block at or below `number` that was applied, or one well below the first
    /// that was.
    async fn common_ancestor(&self, mut number: u64) -> Result<Block, EngineError> {
        let chain_id = self.chain.chain_id();
        // Bounded by the blocks that are kept: the first one that is missing ends the walk.
        loop {
            let mut conn = self.pool.acquire().await.during("read an applied block")?;
            let ours = store::applied_block(&mut conn, chain_id, number).await?;
            let finalized = store::finalized_number(&mut conn, chain_id).await?;
            drop(conn);
            if ours.is_none() && finalized.is_some_and(|finalized| number < finalized) {
                return Err(EngineError::ReorgTooDeep { chain_id, number });
            }
            // A node that does not know the block lags; that is not a block that was replaced.
            let theirs = self.chain.block_at(number).await?;
            let theirs = theirs
                .ok_or_else(|| self.chain.contradiction(format!("it has no block {number}")))?;
            match ours {
                Some(hash) if hash == theirs.hash => return Ok(theirs),
                Some(_) => (),
                // The blocks below were never read, or passed over. Those that replaced them may hold
                // what was sent since.
                None => {
                    let from = number.saturating_sub(N_UNREAD_MAX).max(finalized.unwrap_or(0));
                    let missing = || self.chain.contradiction(format!("it has no block {from}"));
                    return Ok(self.chain.block_at(from).await?.ok_or_else(missing)?);
                }
            }
            number = number.checked_sub(1).ok_or_else(|| {
                self.chain.contradiction("its first block was replaced".to_owned())
            })?;
        }
    }

    async fn promote_if_due(
        &self,
        lease: &Lease,
        tip: Tip,
        block_time: UnixTime,
        promoted_at: &mut Option<Instant>,
    ) -> Result<(), EngineError> {
        if promoted_at.is_some_and(|at| at.elapsed() < PROMOTION_INTERVAL) {
            return Ok(());
        }
        *promoted_at = Some(Instant::now());
        let chain_id = self.chain.chain_id();
        let mut conn = self.pool.acquire().await.during("look for unfinished work")?;
        if !self.look_for_work(&mut conn, block_time).await?.is_unsettled {
            return Ok(());
        }
        drop(conn);
        let (Some(safe), Some(finalized)) =
            (self.chain.safe_block().await?, self.chain.finalized_block().await?)
        else {
            return Ok(());
        };
        let mut db = self.pool.begin().await.during("promote settlements")?;
        lease.hold(&mut db).await?;
        // Blocks that were not applied, or are not those that were, say nothing about the others.
        if store::hold_tip(&mut db, chain_id, tip).await?
            && self.is_applied(&mut db, tip, &safe).await?
            && self.is_applied(&mut db, tip, &finalized).await?
        {
            store::settle_heights(&mut db, chain_id, safe.number, finalized.number).await?;
            if ledger::promote(&mut db, chain_id, safe.number, finalized.number).await? > 0 {
                outcomes::announce(&mut db, chain_id).await?;
            }
            db.commit().await.during("promote settlements")?;
        }
        Ok(())
    }

    /// Whether `block` is one that was applied, or older than what is kept.
    async fn is_applied(
        &self,
        conn: &mut PgConnection,
        tip: Tip,
        block: &Block,
    ) -> Result<bool, EngineError> {
        let ours = store::applied_block(conn, self.chain.chain_id(), block.number).await?;
        Ok(block.number <= tip.number && ours.is_none_or(|hash| hash == block.hash))
    }
}

fn report(block: &Block, decisions: &Decisions) {
    for Proof { settlement_id, evidence, by_us } in &decisions.paid {
        metrics::counter!("quittance_settlements_total", "outcome" => "paid").increment(1);
        tracing::info!(
            settlement.id = %settlement_id,
            transaction.hash = %evidence.transaction_hash,
            block.number = evidence.block_number,
            by_us,
            "a settlement was paid"
        );
    }
    for (settlement_id, refusal) in &decisions.refused {
        metrics::counter!("quittance_settlements_total", "outcome" => "failed").increment(1);
        tracing::info!(
            settlement.id = %settlement_id,
            reason = %refusal.reason,
            block.number = block.number,
            "a settlement failed"
        );
    }
}
