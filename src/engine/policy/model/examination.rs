//! `engine/verdict.rs` against the model chain.

use crate::{
    chain::{Block, Receipt},
    engine::policy::verdict::{Verdict, by_receipts, by_snapshot},
    ledger::Settlement,
};

use super::world::{Shared, Trouble, outside};

pub(super) async fn examine(
    world: &Shared,
    settlement: &Settlement,
    block: &Block,
) -> Result<Verdict, Trouble> {
    let authorization = &settlement.authorization;
    let snapshot = outside(world, |world| {
        let mined = world.chain.block_at(block.number)?;
        let is_it = mined.block.hash == block.hash;
        is_it.then(|| mined.state.snapshot(block, authorization))
    });
    let snapshot = snapshot.await.ok_or(Trouble::Node("unknown block"))?;
    if let Some(verdict) = by_snapshot(settlement, &snapshot, block.timestamp) {
        return Ok(verdict);
    }
    let receipts: Option<Vec<Receipt>> = outside(world, |world| {
        let logs = world.chain.history(authorization, block.number);
        logs.iter().map(|log| world.chain.receipt(log.transaction_hash).cloned()).collect()
    })
    .await;
    receipts
        .and_then(|receipts| by_receipts(settlement, &receipts))
        .ok_or(Trouble::Node("a nonce is used, and no log says for what"))
}
