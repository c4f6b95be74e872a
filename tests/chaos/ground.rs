//! The chain under the run: mines, reorganizes, and remembers every block that it takes away.
//!
//! Blocks come from here and not from anvil's own timer, so that a reorganization knows exactly
//! what it removes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
    time::Duration,
};

use alloy::primitives::{Address, B256, Bytes, U256};
use serde_json::{Value, json};

use crate::{
    dice::Dice,
    record::{Block, Log, Mined},
    support::Node,
};

const BLOCK_TIME: Duration = Duration::from_secs(2);

pub(crate) struct Ground {
    pub(crate) node: Node,
    /// One at a time mines or reorganizes.
    turn: tokio::sync::Mutex<()>,
    orphaned: Mutex<Vec<Block>>,
    /// Signed bytes that others than the replicas sent, by hash.
    raws: Mutex<HashMap<B256, String>>,
}

impl Ground {
    pub(crate) fn new(node: Node) -> Self {
        let (turn, orphaned, raws) = Default::default();
        Self { node, turn, orphaned, raws }
    }

    /// A block every two seconds, until it is dropped.
    pub(crate) async fn mine_forever(&self) {
        let mut clock = tokio::time::interval(BLOCK_TIME);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.mine(1).await;
        }
    }

    pub(crate) async fn mine(&self, n_blocks: u64) {
        let _turn = self.turn.lock().await;
        self.node.mine(n_blocks).await;
    }

    pub(crate) fn orphaned(&self) -> Vec<Block> {
        self.orphaned.lock().unwrap().clone()
    }

    /// Sends bytes of a third party, which a reorganization may keep then. `false` if the node did
    /// not take them.
    pub(crate) async fn send(&self, hash: B256, raw: &str) -> bool {
        self.raws.lock().unwrap().insert(hash, raw.to_owned());
        self.node.send_raw(raw).await.is_ok()
    }

    /// Replaces the newest `depth` blocks by others that hold a part of their transactions; `ours`
    /// are the bytes that the replicas sent. Returns what anvil refused.
    pub(crate) async fn reorganize(
        &self,
        depth: u64,
        kept_per_cent: u64,
        dice: &mut Dice,
        ours: HashMap<B256, String>,
    ) -> Result<(), Value> {
        let _turn = self.turn.lock().await;
        let head = self.node.block_number().await;
        let mut removed = Vec::new();
        for number in head + 1 - depth..=head {
            removed.push(read_block(&self.node, number).await);
        }
        let raws = self.raws.lock().unwrap().clone();
        let raw_of = |hash: B256| ours.get(&hash).or_else(|| raws.get(&hash)).cloned();
        let kept = keep(&removed, kept_per_cent, dice, raw_of);
        self.orphaned.lock().unwrap().extend(removed);
        let pairs: Vec<Value> = kept.iter().map(|(raw, offset)| json!([raw, offset])).collect();
        self.node.try_call("anvil_reorg", json!([depth, pairs])).await.map(drop)
    }

    /// Makes the pool forget a part of what `sender` has in it. Returns how many it forgot.
    pub(crate) async fn forget(&self, sender: Address, per_cent: u64, dice: &mut Dice) -> u64 {
        let mut n = 0;
        for hash in self.node.pool(sender).await.into_values() {
            if dice.happens(per_cent) {
                // It may have been mined meanwhile.
                let dropped = self.node.try_call("anvil_dropTransaction", json!([hash])).await;
                n += u64::from(dropped.is_ok_and(|hash| !hash.is_null()));
            }
        }
        n
    }
}

/// Which transactions stand in the new blocks, and in which: of each sender the first ones, as many
/// as chance wants and their bytes are known, in their order, for account nonces have no gaps.
fn keep(
    removed: &[Block],
    kept_per_cent: u64,
    dice: &mut Dice,
    raw_of: impl Fn(B256) -> Option<String>,
) -> Vec<(String, u64)> {
    let mut by_sender: BTreeMap<Address, Vec<&Mined>> = BTreeMap::new();
    for mined in removed.iter().flat_map(|block| &block.transactions) {
        by_sender.entry(mined.sender).or_default().push(mined);
    }
    let last = u64::try_from(removed.len()).unwrap() - 1;
    let mut kept = Vec::new();
    for sent in by_sender.into_values() {
        let mut offset = 0;
        for mined in sent {
            let Some(raw) = raw_of(mined.hash).filter(|_| dice.happens(kept_per_cent)) else {
                break;
            };
            offset = dice.between(offset, last);
            kept.push((raw, offset));
        }
    }
    kept
}

/// A canonical block with all that its receipts tell.
pub(crate) async fn read_block(node: &Node, number: u64) -> Block {
    let height = format!("{number:#x}");
    let block = node.call("eth_getBlockByNumber", json!([height, true])).await;
    let receipts = node.call("eth_getBlockReceipts", json!([height])).await;
    let receipts = receipts.as_array().cloned().unwrap_or_default();
    let sent = block["transactions"].as_array().cloned().unwrap_or_default();
    assert_eq!(sent.len(), receipts.len(), "block {number} changed while it was read");
    let transactions = sent.iter().zip(&receipts).map(|(sent, receipt)| Mined {
        hash: read(&sent["hash"]),
        sender: read(&sent["from"]),
        account_nonce: quantity(&sent["nonce"]).to(),
        fee_wei: quantity(&receipt["gasUsed"]) * quantity(&receipt["effectiveGasPrice"]),
        logs: receipt["logs"].as_array().unwrap().iter().map(read_log).collect(),
    });
    Block { hash: read(&block["hash"]), transactions: transactions.collect() }
}

fn read_log(log: &Value) -> Log {
    Log {
        index: quantity(&log["logIndex"]).to(),
        address: read(&log["address"]),
        topics: log["topics"].as_array().unwrap().iter().map(read).collect(),
        data: read::<Bytes>(&log["data"]).to_vec(),
    }
}

fn read<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Value) -> T {
    value.as_str().unwrap().parse().unwrap()
}

fn quantity(value: &Value) -> U256 {
    value.as_str().unwrap().parse().unwrap()
}
