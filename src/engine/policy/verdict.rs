//! Can this settlement still be paid? Pure: what the chain said at one block in, a verdict out.

use crate::{
    chain::{Fate, Receipt, fate},
    domain::{Evidence, InvalidReason, Refusal, UnixTime},
    ledger::Settlement,
    verify::{self, ChainSnapshot, Factories, MINING_MARGIN, Unwrapped, against},
};

/// What the chain says at one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Verdict {
    /// A transaction sent now would pay it.
    Payable,
    /// Not now, but nothing proves that it never will be.
    NotNow(Refusal),
    /// It was paid, by whoever sent it.
    Paid(Evidence),
    /// Proven: it cannot be paid.
    Refused(Refusal),
}

/// Judges by a snapshot at the block of `block_time`. `None` if the authorization is used: then
/// only the logs of its use tell.
pub(in crate::engine) fn by_snapshot(
    settlement: &Settlement,
    snapshot: &ChainSnapshot,
    block_time: UnixTime,
) -> Option<Verdict> {
    let valid_before = settlement.authorization.valid_before;
    if snapshot.authorization_used == Some(true) {
        return None;
    }
    let is_unused = snapshot.authorization_used == Some(false);
    if is_unused && valid_before <= block_time.as_u256() {
        let number = snapshot.block_number;
        let message = format!("the authorization expired before block {number} was built");
        return Some(Verdict::Refused(Refusal::new(InvalidReason::ValidBefore, message)));
    }
    if valid_before <= block_time.saturating_add(MINING_MARGIN).as_u256() {
        let message = "the authorization is about to expire".to_owned();
        return Some(Verdict::NotNow(Refusal::new(InvalidReason::ValidBefore, message)));
    }
    // Its factory was allowed when it was claimed.
    let deployment = Unwrapped::of(&settlement.signature).deployment;
    let factories = Factories::of(deployment.map(|deployment| deployment.factory));
    let judged = verify::terms(&settlement.request(), block_time, &factories)
        .and_then(|terms| against(terms, snapshot));
    Some(match judged {
        Ok(_) => Verdict::Payable,
        // What can pass is no proof: a token is paused, upgraded, or its views revert for a block; a
        // delegation is taken back; a clock is slow. Money that is gone counts as proof (settlement
        // engine reference, scenario 24).
        Err(refusal) if refusal.reason == InvalidReason::InsufficientBalance => {
            Verdict::Refused(refusal)
        }
        Err(refusal) => Verdict::NotNow(refusal),
    })
}

/// Judges by the receipts of what used the authorization. A used nonce is no proof of payment: the
/// payer may have cancelled it, or spent it on another payee. `None` if no receipt says which; that
/// none is there says nothing.
pub(in crate::engine) fn by_receipts(
    settlement: &Settlement,
    receipts: &[Receipt],
) -> Option<Verdict> {
    let mut is_consumed = false;
    for receipt in receipts {
        match fate(receipt, settlement.asset, &settlement.authorization) {
            Fate::Paid(evidence) => return Some(Verdict::Paid(evidence)),
            Fate::Consumed => is_consumed = true,
            Fate::Unknown => (),
        }
    }
    is_consumed.then(|| Verdict::Refused(consumed()))
}

/// The refusal of an authorization whose nonce was spent on something else.
pub(in crate::engine) fn consumed() -> Refusal {
    Refusal::new(
        InvalidReason::NonceAlreadyUsed,
        "the authorization was cancelled, or its nonce was used for another payment",
    )
}
