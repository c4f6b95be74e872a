//! Can this settlement still be paid? Asked when a transaction left no evidence, when an
//! authorization expired, and before an old claim is signed for.

use futures_util::future::try_join_all;

use crate::{
    chain::{Block, Chain, ChainError, transfer_evidence},
    domain::{Evidence, InvalidReason, Refusal},
    ledger::Settlement,
    verify::{self, MINING_MARGIN, against},
};

/// How many blocks before the one it was verified at are searched for logs: a reorganization may
/// have moved what verification saw.
const SEARCH_MARGIN_BLOCKS: u64 = 64;

/// What the chain says at one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A transaction sent now would pay it.
    Payable,
    /// Not now, but nothing proves that it never will be.
    NotNow(Refusal),
    /// It was paid, by whoever sent it.
    Paid(Evidence),
    /// Proven: it cannot be paid.
    Refused(Refusal),
}

/// Judges `settlement` by what the chain says at `block`.
pub(super) async fn examine(
    chain: &Chain,
    settlement: &Settlement,
    block: &Block,
) -> Result<Verdict, ChainError> {
    let authorization = &settlement.authorization;
    let snapshot =
        chain.snapshot(block, settlement.asset, authorization, &settlement.signature).await?;
    if snapshot.authorization_used == Some(true) {
        return used(chain, settlement, block).await;
    }
    if authorization.valid_before <= block.timestamp.as_u256() {
        let message = format!("the authorization expired before block {} was built", block.number);
        return Ok(Verdict::Refused(Refusal::new(InvalidReason::ValidBefore, message)));
    }
    if authorization.valid_before <= block.timestamp.saturating_add(MINING_MARGIN).as_u256() {
        let message = "the authorization is about to expire".to_owned();
        return Ok(Verdict::NotNow(Refusal::new(InvalidReason::ValidBefore, message)));
    }
    let judged = verify::terms(&settlement.request(), block.timestamp)
        .and_then(|terms| against(terms, &snapshot));
    Ok(match judged {
        Ok(_) => Verdict::Payable,
        Err(refusal) => match refusal.reason {
            // A token can be paused, and a clock can be slow: both pass.
            InvalidReason::SimulationFailed
            | InvalidReason::ValidAfter
            | InvalidReason::ValidBefore => Verdict::NotNow(refusal),
            _ => Verdict::Refused(refusal),
        },
    })
}

/// A used nonce is no proof of payment: the payer may have cancelled it, or spent it on another
/// payee. The logs say which.
async fn used(
    chain: &Chain,
    settlement: &Settlement,
    block: &Block,
) -> Result<Verdict, ChainError> {
    let authorization = &settlement.authorization;
    let from = settlement.verified_block.saturating_sub(SEARCH_MARGIN_BLOCKS);
    let logs = chain
        .authorization_history(
            settlement.asset,
            authorization.payer,
            authorization.nonce,
            from,
            block.number,
        )
        .await?;
    let receipts = try_join_all(logs.iter().map(|log| chain.receipt(log.transaction_hash))).await?;
    let evidence = receipts
        .iter()
        .flatten()
        .find_map(|receipt| transfer_evidence(receipt, settlement.asset, authorization));
    Ok(evidence.map_or_else(|| Verdict::Refused(consumed()), Verdict::Paid))
}

/// The refusal of an authorization whose nonce was spent on something else.
pub(super) fn consumed() -> Refusal {
    Refusal::new(
        InvalidReason::NonceAlreadyUsed,
        "the authorization was cancelled, or its nonce was used for another payment",
    )
}
