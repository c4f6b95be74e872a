//! `engine/follower.rs` in its order of operations, against the model world: blocks are read in
//! order, decided by evidence, and taken back when they are replaced.

use std::collections::{BTreeSet, HashMap};

use alloy::primitives::B256;

use crate::{
    chain::{Block, Receipt, TokenEvent},
    domain::{SettlementId, SettlementStatus, UnixTime},
    engine::{
        policy::{
            batch::company_after,
            block::{BlockFacts, Decisions, decide, gas_shares},
            verdict::Verdict,
        },
        store::Tip,
    },
    ledger::Proof,
};

use super::{
    books::{Books, GasEntry, Kind, Lease, Refused},
    chain::{FINALIZED_DEPTH, SAFE_DEPTH},
    examination::examine,
    world::{Shared, Trouble, commit, outside},
};

/// How many blocks below the first that was read are read after all when that one is replaced.
const N_UNREAD_MAX: u64 = 8;

pub(super) async fn follow(world: &Shared, lease: Lease) -> Result<(), Trouble> {
    let latest = outside(world, |world| world.chain.head().block.clone()).await;
    let Some(tip) = outside(world, |world| world.books.head).await else {
        commit(world, lease, |books| {
            books.start_at(&latest);
            Ok(Some(()))
        })
        .await?;
        return Ok(());
    };
    if latest.hash == tip.hash {
        return promote(world, lease, tip).await;
    }
    if latest.number <= tip.number {
        let ours = outside(world, |world| world.books.applied.get(&latest.number).copied()).await;
        if ours.is_none_or(|hash| hash == latest.hash) {
            return Ok(());
        }
        return unwind(world, lease, tip, latest.number).await;
    }
    if latest.parent_hash != tip.hash {
        let from = block_at(world, tip.number).await.filter(|from| from.hash == tip.hash);
        if let Some(from) = from
            && outside(world, |world| world.books.unfinished(from.timestamp)).await.is_nothing()
        {
            return jump(world, lease, tip, from.timestamp, &latest).await;
        }
    }
    let next = match latest.number == tip.number + 1 {
        true => Some(latest.clone()),
        false => block_at(world, tip.number + 1).await,
    };
    match next {
        Some(next) if next.parent_hash == tip.hash => apply(world, lease, tip, &next).await,
        Some(_) => unwind(world, lease, tip, latest.number).await,
        None => Err(Trouble::Node("a block is missing")),
    }
}

async fn block_at(world: &Shared, number: u64) -> Option<Block> {
    outside(world, |world| world.chain.block_at(number).map(|mined| mined.block.clone())).await
}

/// Passes over blocks that can concern nobody.
async fn jump(
    world: &Shared,
    lease: Lease,
    tip: Tip,
    since: UnixTime,
    block: &Block,
) -> Result<(), Trouble> {
    commit(world, lease, |books| {
        let may_jump = books.hold_tip(tip) && books.unfinished(since).is_nothing();
        Ok(may_jump.then(|| books.start_at(block)))
    })
    .await?;
    Ok(())
}

async fn apply(world: &Shared, lease: Lease, tip: Tip, block: &Block) -> Result<(), Trouble> {
    let facts = gather(world, block).await?;
    let mut decisions = decide(&facts);
    let mut requeued = Vec::new();
    for settlement in &facts.settlements {
        let settlement_id = settlement.settlement_id;
        if !decisions.unclear.contains(&settlement_id) {
            continue;
        }
        match examine(world, settlement, block).await {
            Ok(Verdict::Paid(evidence)) => {
                decisions.paid.push(Proof { settlement_id, evidence, by_us: false });
            }
            Ok(Verdict::Refused(refusal)) => decisions.refused.push((settlement_id, refusal)),
            Ok(Verdict::Payable | Verdict::NotNow(_)) | Err(_) => requeued.push(settlement_id),
        }
    }
    commit(world, lease, |books| {
        if !books.advance(block, tip.hash) {
            return Ok(None);
        }
        write(books, &facts, &decisions, &requeued).map(Some)
    })
    .await?;
    Ok(())
}

async fn gather(world: &Shared, block: &Block) -> Result<BlockFacts, Trouble> {
    let time = block.timestamp;
    let (watches, ours, expired) = outside(world, |world| {
        let ours = world.books.ours_among(&block.transaction_hashes);
        (world.books.watches(time), ours, world.books.expired(time))
    })
    .await;
    let events: Option<Vec<TokenEvent>> = outside(world, |world| {
        if !watches {
            return Some(Vec::new());
        }
        let mined = world.chain.block_at(block.number).filter(|at| at.block.hash == block.hash)?;
        let logs = mined.receipts.iter().flat_map(|receipt| &receipt.logs);
        Some(logs.filter_map(TokenEvent::read).collect())
    })
    .await;
    let events = events.ok_or(Trouble::Node("unknown block"))?;
    let settlements = outside(world, |world| {
        let mut concerned: BTreeSet<SettlementId> =
            world.books.settlements_of(&events).into_iter().collect();
        concerned.extend(ours.iter().flat_map(|mined| mined.settlement_ids.iter().copied()));
        concerned.extend(expired.iter().copied());
        let rows = concerned.iter().map(|id| &world.books.settlements[id].settlement);
        rows.cloned().collect::<Vec<_>>()
    })
    .await;
    let is_known = |event: &&TokenEvent| {
        settlements
            .iter()
            .any(|s| s.authorization.payer == event.payer && s.authorization.nonce == event.nonce)
    };
    let known = events.iter().filter(is_known).map(|event| event.transaction_hash);
    let hashes: BTreeSet<B256> = ours.iter().map(|mined| mined.hash).chain(known).collect();
    let receipts: Option<HashMap<B256, Receipt>> = outside(world, |world| {
        let read = |hash: B256| {
            let receipt = world.chain.receipt(hash).filter(|r| r.block_hash == block.hash)?;
            Some((hash, receipt.clone()))
        };
        hashes.into_iter().map(read).collect()
    })
    .await;
    Ok(BlockFacts {
        receipts: receipts.ok_or(Trouble::Node("a receipt is of another block"))?,
        ours,
        settlements,
        expired: expired.into_iter().collect(),
    })
}

fn write(
    books: &mut Books,
    facts: &BlockFacts,
    decisions: &Decisions,
    requeued: &[SettlementId],
) -> Result<(), Refused> {
    for mined in &facts.ours {
        let Some(receipt) = facts.receipts.get(&mined.hash) else { continue };
        books.mark_mined(mined.transaction_id, receipt);
        let shares = gas_shares(receipt.fee_wei, mined.settlement_ids.len());
        books.gas.extend(shares.into_iter().map(|fee_wei| GasEntry {
            transaction_id: usize::try_from(mined.transaction_id).expect("it counts from zero"),
            kind: Kind::Post,
            block_hash: receipt.block_hash,
            fee_wei,
        }));
    }
    let (standing, unread): (Vec<Proof>, Vec<Proof>) =
        decisions.paid.iter().partition(|proof| books.is_canonical(&proof.evidence));
    for proof in unread {
        books.requeue(proof.settlement_id)?;
    }
    books.include(&standing)?;
    for (settlement_id, refusal) in &decisions.refused {
        let expected = [SettlementStatus::Claimed, SettlementStatus::Submitted];
        books.fail(*settlement_id, &expected, refusal)?;
    }
    for settlement_id in requeued {
        books.requeue(*settlement_id)?;
    }
    for mined in &facts.ours {
        let carried = mined.settlement_ids.iter();
        let left: Vec<SettlementId> = carried.filter(|id| requeued.contains(id)).copied().collect();
        let reverted = facts.receipts.get(&mined.hash).is_some_and(|receipt| !receipt.succeeded);
        books.limit_company(&left, company_after(mined.settlement_ids.len(), reverted));
    }
    Ok(())
}

/// Goes back to the newest applied block that still stands.
async fn unwind(world: &Shared, lease: Lease, tip: Tip, latest_number: u64) -> Result<(), Trouble> {
    let mut number = tip.number.min(latest_number);
    let ancestor = loop {
        let (ours, finalized) = outside(world, |world| {
            (world.books.applied.get(&number).copied(), world.books.finalized_number)
        })
        .await;
        if ours.is_none() && finalized.is_some_and(|finalized| number < finalized) {
            return Err(Trouble::Node("a reorganization is too deep"));
        }
        let theirs = block_at(world, number).await.ok_or(Trouble::Node("a block is missing"))?;
        match ours {
            Some(hash) if hash == theirs.hash => break theirs,
            Some(_) => (),
            None => {
                let from = number.saturating_sub(N_UNREAD_MAX).max(finalized.unwrap_or(0));
                break block_at(world, from).await.ok_or(Trouble::Node("a block is missing"))?;
            }
        }
        number = number.checked_sub(1).ok_or(Trouble::Node("the first block was replaced"))?;
    };
    commit(world, lease, |books| {
        let Some(left) = books.rewind(tip, &ancestor) else { return Ok(None) };
        let reopened = books.reopen(ancestor.number);
        books.orphan(ancestor.number)?;
        books.reverse_gas(&reopened, &left);
        Ok(Some(()))
    })
    .await?;
    Ok(())
}

/// Records how deep evidence stands by now.
async fn promote(world: &Shared, lease: Lease, tip: Tip) -> Result<(), Trouble> {
    let time = outside(world, |world| world.chain.head().block.timestamp).await;
    if !outside(world, |world| world.books.unfinished(time)).await.is_unsettled {
        return Ok(());
    }
    let safe = outside(world, |world| world.chain.below_head(SAFE_DEPTH).block.clone()).await;
    let finalized =
        outside(world, |world| world.chain.below_head(FINALIZED_DEPTH).block.clone()).await;
    commit(world, lease, |books| {
        let is_applied = |block: &Block| {
            let ours = books.applied.get(&block.number);
            block.number <= tip.number && ours.is_none_or(|hash| *hash == block.hash)
        };
        if !books.hold_tip(tip) || !is_applied(&safe) || !is_applied(&finalized) {
            return Ok(None);
        }
        books.settle_heights(finalized.number);
        books.promote(safe.number, finalized.number)?;
        Ok(Some(()))
    })
    .await?;
    Ok(())
}
