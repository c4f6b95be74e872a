//! Looks at the chain again where a block leaves a question: when a transaction left no evidence,
//! when an authorization expired, and before an old claim is signed for. `policy::verdict` decides.

use crate::{
    chain::{Block, BlockId, Chain, ChainError},
    domain::Evidence,
    faults::{Defect, has_defect},
    ledger::Settlement,
};

use super::{
    calls::question,
    policy::verdict::{by_receipts, by_snapshot},
};

pub(super) use super::policy::verdict::Verdict;

/// How many blocks before the one it was verified at are searched for logs: a reorganization may
/// have moved what verification saw.
const SEARCH_MARGIN_BLOCKS: u64 = 64;

/// Judges `settlement` by what the chain says at `block`.
pub(super) async fn examine(
    chain: &Chain,
    settlement: &Settlement,
    block: &Block,
) -> Result<Verdict, ChainError> {
    let seen = chain.look(&[question(settlement)], BlockId::hash(block.hash)).await?;
    let Some(snapshot) = seen.first() else {
        return Err(chain.contradiction("a payment was looked at and not seen".to_owned()));
    };
    match by_snapshot(settlement, snapshot, block.timestamp) {
        Some(verdict) => Ok(verdict),
        None => used(chain, settlement, block).await,
    }
}

async fn used(
    chain: &Chain,
    settlement: &Settlement,
    block: &Block,
) -> Result<Verdict, ChainError> {
    let authorization = &settlement.authorization;
    let from = settlement.verified_block.saturating_sub(SEARCH_MARGIN_BLOCKS);
    let logs =
        chain.authorization_history(settlement.asset, authorization, from, block.number).await?;
    let mut receipts = Vec::with_capacity(logs.len());
    for log in &logs {
        let receipt = chain.receipt(log.transaction_hash).await?;
        let Some(receipt) = receipt.filter(|receipt| receipt.block_hash == log.block_hash) else {
            return Err(chain.contradiction(format!(
                "a log of transaction {} is there, and its receipt is not",
                log.transaction_hash
            )));
        };
        receipts.push(receipt);
    }
    let verdict = by_receipts(settlement, &receipts);
    if has_defect(Defect::UsedIsPaid)
        && !matches!(verdict, Some(Verdict::Paid(_)))
        && let Some(log) = logs.first()
    {
        return Ok(Verdict::Paid(Evidence {
            transaction_hash: log.transaction_hash,
            block_number: log.block_number,
            block_hash: log.block_hash,
            log_index: log.log_index,
        }));
    }
    verdict.ok_or_else(|| {
        chain.contradiction(format!(
            "nonce {} is used, and no log says for what",
            authorization.nonce
        ))
    })
}
