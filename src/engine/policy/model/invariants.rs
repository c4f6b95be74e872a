//! What must hold after every step, and what must hold when nothing moves any more. The numbers are
//! those of the settlement-engine reference, 2b.

use std::collections::BTreeSet;

use alloy::primitives::U256;

use crate::{
    domain::SettlementStatus::{Claimed, Failed, Finalized, Included, Safe, Submitted},
    engine::{policy::fees::Fees, store::WalletStatus},
};

use super::{
    books::{Kind, TransactionStatus},
    world::World,
};

/// How long after its authorization expired a settlement may be open on a chain that lives.
const GRACE_SECONDS: u64 = 60;

/// After every step.
pub(super) fn check(world: &World) -> Result<(), String> {
    if let Some(violation) = world.violations.first() {
        return Err(violation.clone());
    }
    posts_are_at_most_one(world)?;
    what_was_seen_is_stored(world)?;
    nonces_are_dense(world)?;
    the_books_agree_with_their_head(world)?;
    failures_are_proven(world)?;
    replacements_are_worth_taking(world)?;
    only_owners_commit(world)?;
    no_wallet_is_quarantined_without_a_theft(world)
}

/// I1.
fn posts_are_at_most_one(world: &World) -> Result<(), String> {
    let has_paid = [Included, Safe, Finalized];
    for (id, row) in &world.books.settlements {
        let (net, status) = (world.books.net_posts(*id), row.settlement.status);
        let expected = i64::from(has_paid.contains(&status));
        ensure(net == expected, || format!("I1: {status:?} with {net} net posts"))?;
    }
    Ok(())
}

/// I3. That it was stored before it was sent is looked at when it is sent.
fn what_was_seen_is_stored(world: &World) -> Result<(), String> {
    let wallets = world.books.wallets.iter().map(|wallet| wallet.address).collect();
    for hash in world.chain.seen_of(&wallets) {
        let is_known = world.stolen.contains(&hash) || world.books.attempt(hash).is_some();
        ensure(is_known, || format!("I3: {hash} was seen and is not stored"))?;
    }
    Ok(())
}

/// I4.
fn nonces_are_dense(world: &World) -> Result<(), String> {
    for (index, wallet) in world.books.wallets.iter().enumerate() {
        let of_wallet = world.books.transactions.iter().filter(|row| row.wallet == index);
        let nonces: Vec<u64> = of_wallet.map(|row| row.account_nonce).collect();
        let dense: Vec<u64> = (0..wallet.next_account_nonce).collect();
        ensure(nonces == dense, || format!("I4: account nonces {nonces:?}"))?;
    }
    Ok(())
}

/// I5, and its other half: what is failed was not paid in the blocks that were applied, and what is
/// paid was paid there.
fn the_books_agree_with_their_head(world: &World) -> Result<(), String> {
    let Some(head) = world.books.head else { return Ok(()) };
    let state = &world.chain.blocks[&head.hash].state;
    for row in world.books.settlements.values() {
        let settlement = &row.settlement;
        let is_paid = state.has_paid(&settlement.authorization);
        let agrees = match settlement.status {
            Failed => !is_paid,
            Included | Safe | Finalized => is_paid,
            Claimed | Submitted => true,
        };
        ensure(agrees, || {
            let status = settlement.status;
            format!("I5: {status:?}, and paid is {is_paid} at the applied block {}", head.number)
        })?;
    }
    Ok(())
}

/// What no block ever refused has not failed, whatever a node said or did not say.
fn failures_are_proven(world: &World) -> Result<(), String> {
    let failed = world.books.settlements.values().filter(|row| row.settlement.status == Failed);
    for row in failed {
        let authorization = &row.settlement.authorization;
        let mut blocks = world.chain.blocks.values();
        let is_proven =
            blocks.any(|mined| mined.state.refuses(authorization, mined.block.timestamp));
        ensure(is_proven, || "I5: failed, and no block ever said so".to_owned())?;
    }
    Ok(())
}

/// Nodes take a replacement from ten per cent more on in both fields, next to whichever they hold.
fn replacements_are_worth_taking(world: &World) -> Result<(), String> {
    for row in &world.books.transactions {
        let offers: Vec<Fees> = row.attempts.iter().map(|attempt| attempt.envelope.fees).collect();
        for (old, new) in offers.iter().zip(offers.iter().skip(1)) {
            let is_more = new.fee_wei_max * 10 >= old.fee_wei_max * 11
                && new.priority_fee_wei_max * 10 >= old.priority_fee_wei_max * 11;
            ensure(is_more, || format!("{new:?} does not replace {old:?}"))?;
        }
    }
    Ok(())
}

/// I9.
fn only_owners_commit(world: &World) -> Result<(), String> {
    let stale = world.stale_commits.first();
    ensure(stale.is_none(), || format!("I9: a commit under a lease that was lost: {stale:?}"))
}

fn no_wallet_is_quarantined_without_a_theft(world: &World) -> Result<(), String> {
    let quarantined = |status| status == WalletStatus::Quarantined;
    let is_alarmed = world.books.wallets.iter().any(|wallet| quarantined(wallet.status));
    ensure(!is_alarmed || !world.stolen.is_empty(), || {
        "a wallet was quarantined for nothing".into()
    })
}

/// I8, while the chain lives and nothing fails since `calm_since`.
pub(super) fn check_deadlines(world: &World, calm_since: u64) -> Result<(), String> {
    let now = world.chain.head().block.timestamp.as_u256();
    for row in world.books.settlements.values() {
        let settlement = &row.settlement;
        let due = settlement.authorization.valid_before.max(U256::from(calm_since));
        let is_late = now > due + U256::from(GRACE_SECONDS);
        let is_open = matches!(settlement.status, Claimed | Submitted);
        ensure(!(is_late && is_open), || format!("I8: still {:?}", settlement.status))?;
    }
    Ok(())
}

/// Whether there is nothing left to do.
pub(super) fn is_quiet(world: &World) -> bool {
    let is_over = |status| matches!(status, Finalized | Failed);
    let is_resolved =
        |status| matches!(status, TransactionStatus::Finalized { .. } | TransactionStatus::Foreign);
    let books = &world.books;
    books.head.is_some_and(|head| head.hash == world.chain.head().block.hash)
        && books.settlements.values().all(|row| is_over(row.settlement.status))
        && books.transactions.iter().all(|row| is_resolved(row.status))
}

/// I2, for payments and for gas.
pub(super) fn check_sums(world: &World) -> Result<(), String> {
    let state = &world.chain.head().state;
    for (id, row) in &world.books.settlements {
        let on_chain = state.has_paid(&row.settlement.authorization);
        let posted = world.books.net_posts(*id) == 1;
        ensure(on_chain == posted, || {
            format!("I2: posted is {posted}, paid on chain is {on_chain}")
        })?;
    }
    let books = &world.books;
    let carried: BTreeSet<_> = books
        .transactions
        .iter()
        .filter(|row| !row.items.is_empty())
        .flat_map(|row| row.attempts.iter().map(|attempt| attempt.envelope.hash))
        .collect();
    let spent: U256 = carried
        .iter()
        .filter_map(|hash| world.chain.receipt(*hash))
        .map(|receipt| receipt.fee_wei)
        .sum();
    let charged = books.standing_gas();
    debug_assert!(charged.iter().all(|entry| entry.kind == Kind::Post));
    let charged: U256 = charged.iter().map(|entry| entry.fee_wei).sum();
    ensure(spent == charged, || format!("I2: gas of {spent} was spent, {charged} was charged"))
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
