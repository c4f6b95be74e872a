//! Can this settlement still be paid? Asked when a transaction left no evidence, when an
//! authorization expired, and before an old claim is signed for.

use crate::{
    chain::{Block, Chain, ChainError, Fate, fate},
    domain::{Evidence, InvalidReason, Refusal},
    faults::{Defect, has_defect},
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
    let is_unused = snapshot.authorization_used == Some(false);
    if is_unused && authorization.valid_before <= block.timestamp.as_u256() {
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
        // What can pass is no proof: a token is paused, upgraded, or its views revert for a block; a
        // delegation is taken back; a clock is slow. Money that is gone counts as proof (settlement
        // engine reference, scenario 24).
        Err(refusal) if refusal.reason == InvalidReason::InsufficientBalance => {
            Verdict::Refused(refusal)
        }
        Err(refusal) => Verdict::NotNow(refusal),
    })
}

/// A used nonce is no proof of payment: the payer may have cancelled it, or spent it on another
/// payee. The logs say which; that there are none says nothing.
async fn used(
    chain: &Chain,
    settlement: &Settlement,
    block: &Block,
) -> Result<Verdict, ChainError> {
    let authorization = &settlement.authorization;
    let from = settlement.verified_block.saturating_sub(SEARCH_MARGIN_BLOCKS);
    let logs =
        chain.authorization_history(settlement.asset, authorization, from, block.number).await?;
    let mut is_consumed = false;
    for log in &logs {
        let receipt = chain.receipt(log.transaction_hash).await?;
        let Some(receipt) = receipt.filter(|receipt| receipt.block_hash == log.block_hash) else {
            return Err(chain.contradiction(format!(
                "a log of transaction {} is there, and its receipt is not",
                log.transaction_hash
            )));
        };
        match fate(&receipt, settlement.asset, authorization) {
            Fate::Paid(evidence) => return Ok(Verdict::Paid(evidence)),
            Fate::Consumed => is_consumed = true,
            Fate::Unknown => (),
        }
    }
    if has_defect(Defect::UsedIsPaid)
        && let Some(log) = logs.first()
    {
        return Ok(Verdict::Paid(Evidence {
            transaction_hash: log.transaction_hash,
            block_number: log.block_number,
            block_hash: log.block_hash,
            log_index: log.log_index,
        }));
    }
    if is_consumed {
        return Ok(Verdict::Refused(consumed()));
    }
    Err(chain
        .contradiction(format!("nonce {} is used, and no log says for what", authorization.nonce)))
}

/// The refusal of an authorization whose nonce was spent on something else.
pub(super) fn consumed() -> Refusal {
    Refusal::new(
        InvalidReason::NonceAlreadyUsed,
        "the authorization was cancelled, or its nonce was used for another payment",
    )
}
