//! A chain of blocks that stand on each other, a pool in front of it, and what a node tells of both.
//!
//! It forks, forgets and lies as real ones do, and it never runs by itself.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, keccak256};

use crate::{
    chain::{Block, FeeFacts, Log, Receipt, SendAnswer},
    domain::{Authorization, UnixTime},
    engine::policy::fees::Fees,
};

use super::token::{Call, State, execute};

/// Signed bytes, as far as anybody looks into them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) sender: Address,
    pub(super) account_nonce: u64,
    pub(super) fees: Fees,
    pub(super) gas_limit: u64,
    /// None for a cancellation, one straight to the token, several through a carrier.
    pub(super) calls: Vec<Call>,
    pub(super) hash: B256,
}

impl Envelope {
    pub(super) fn sign(
        sender: Address,
        account_nonce: u64,
        fees: Fees,
        gas_limit: u64,
        calls: Vec<Call>,
    ) -> Self {
        let words = format!("{sender} {account_nonce} {fees:?} {gas_limit} {calls:?}");
        Self { sender, account_nonce, fees, gas_limit, calls, hash: keccak256(words) }
    }
}

/// How the node answers to signed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// It does what it says.
    Honest,
    /// It takes them, and its answer is lost.
    TakesAndTimesOut,
    /// It takes them, and says that it did not.
    TakesAndRefuses,
    /// It never sees them.
    TimesOut,
    /// It says that it took them, and forgets them.
    Forgets,
}

/// A block and what it left behind.
#[derive(Debug, Clone)]
pub(super) struct Mined {
    pub(super) block: Block,
    pub(super) transactions: Vec<Envelope>,
    pub(super) receipts: Vec<Receipt>,
    /// After the block.
    pub(super) state: State,
}

/// What the next blocks are made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The earliest time of the block.
    pub(super) time: UnixTime,
    /// How many transactions fit.
    pub(super) n_transactions_max: usize,
}

#[derive(Debug)]
pub(super) struct Chain {
    /// Every block that ever was.
    pub(super) blocks: BTreeMap<B256, Mined>,
    /// The hashes of those that stand, by height.
    pub(super) canonical: Vec<B256>,
    pub(super) pool: Vec<Envelope>,
    pub(super) base_fee_wei: u128,
    pub(super) priority_fee_wei: u128,
}

/// How far below the head the `safe` and the `finalized` block are.
pub(super) const SAFE_DEPTH: usize = 3;
pub(super) const FINALIZED_DEPTH: usize = 6;
/// How many seconds lie between two blocks.
pub(super) const BLOCK_SECONDS: u64 = 2;

impl Chain {
    pub(super) fn new(time: UnixTime) -> Self {
        let mut chain = Self {
            blocks: BTreeMap::new(),
            canonical: Vec::new(),
            pool: Vec::new(),
            base_fee_wei: 10_000_000,
            priority_fee_wei: 1_000_000,
        };
        chain.append(time, Vec::new());
        chain
    }

    pub(super) fn head(&self) -> &Mined {
        &self.blocks[self.canonical.last().expect("the first block is never removed")]
    }

    pub(super) fn block_at(&self, number: u64) -> Option<&Mined> {
        let hash = self.canonical.get(usize::try_from(number).ok()?)?;
        self.blocks.get(hash)
    }

    /// The block so far below the head, or the first one.
    pub(super) fn below_head(&self, depth: usize) -> &Mined {
        let index = (self.canonical.len() - 1).saturating_sub(depth);
        &self.blocks[&self.canonical[index]]
    }

    pub(super) fn receipt(&self, hash: B256) -> Option<&Receipt> {
        let receipts = self.canonical.iter().flat_map(|block| &self.blocks[block].receipts);
        receipts.into_iter().find(|receipt| receipt.transaction_hash == hash)
    }

    /// The logs that used up `authorization` in the blocks that stand, up to a height.
    pub(super) fn history(&self, authorization: &Authorization, up_to: u64) -> Vec<&Log> {
        let words = [authorization.payer.into_word(), *authorization.nonce.as_bytes()];
        let blocks = self.canonical.iter().map(|hash| &self.blocks[hash]);
        blocks
            .filter(|mined| mined.block.number <= up_to)
            .flat_map(|mined| mined.receipts.iter().flat_map(|receipt| &receipt.logs))
            .filter(|log| log.topics.get(1..) == Some(words.as_slice()))
            .collect()
    }

    pub(super) const fn fee_facts(&self) -> FeeFacts {
        FeeFacts { base_fee_wei: self.base_fee_wei, priority_fee_wei: self.priority_fee_wei }
    }

    /// What the node does with signed bytes, and what it says about it.
    pub(super) fn send(&mut self, envelope: &Envelope, mood: Mood) -> SendAnswer {
        let timeout = SendAnswer::unknown("error sending request: operation timed out");
        match mood {
            Mood::TimesOut => return timeout,
            Mood::Forgets => return SendAnswer::Accepted,
            Mood::Honest | Mood::TakesAndTimesOut | Mood::TakesAndRefuses => (),
        }
        let said = self.take(envelope);
        match mood {
            Mood::TakesAndTimesOut => timeout,
            Mood::TakesAndRefuses => SendAnswer::of_refusal("nonce too low: next nonce 7"),
            Mood::Honest | Mood::TimesOut | Mood::Forgets => {
                said.map_or(SendAnswer::Accepted, SendAnswer::of_refusal)
            }
        }
    }

    /// The rules of a pool, in the words of go-ethereum.
    fn take(&mut self, envelope: &Envelope) -> Option<&'static str> {
        if envelope.account_nonce < self.head().state.account_nonce(envelope.sender) {
            return Some("nonce too low");
        }
        if self.pool.contains(envelope) {
            return Some("already known");
        }
        if envelope.fees.fee_wei_max < self.base_fee_wei {
            return Some("max fee per gas less than block base fee");
        }
        let slot = |held: &Envelope| {
            held.sender == envelope.sender && held.account_nonce == envelope.account_nonce
        };
        if let Some(held) = self.pool.iter_mut().find(|held| slot(held)) {
            let is_more = |new: u128, old: u128| new * 10 >= old * 11;
            let (new, old) = (envelope.fees, held.fees);
            if !is_more(new.fee_wei_max, old.fee_wei_max)
                || !is_more(new.priority_fee_wei_max, old.priority_fee_wei_max)
            {
                return Some("replacement transaction underpriced");
            }
            *held = envelope.clone();
            return None;
        }
        self.pool.push(envelope.clone());
        None
    }

    /// Builds a block from the pool: in the order of account nonces, and nothing below the base fee.
    pub(super) fn mine(&mut self, slot: Slot) {
        let mut next = self.head().state.account_nonces.clone();
        let mut chosen: Vec<Envelope> = Vec::new();
        while chosen.len() < slot.n_transactions_max {
            let fits = |envelope: &&Envelope| {
                envelope.account_nonce == next.get(&envelope.sender).copied().unwrap_or(0)
                    && envelope.fees.fee_wei_max >= self.base_fee_wei
            };
            let Some(envelope) = self.pool.iter().find(fits).cloned() else { break };
            *next.entry(envelope.sender).or_default() += 1;
            chosen.push(envelope);
        }
        self.append(slot.time, chosen);
    }

    /// Replaces the newest `depth` blocks by `n_new` others. Of the transactions in them, those that
    /// `keeps` says stand in the new ones again; the others return to the pool, or are gone.
    pub(super) fn reorganize(&mut self, depth: usize, n_new: usize, keeps: u64, forgets: bool) {
        let depth = depth.min(self.canonical.len() - 1);
        let left = self.canonical.split_off(self.canonical.len() - depth);
        let old: Vec<Mined> = left.iter().map(|hash| self.blocks[hash].clone()).collect();
        let bit = |index: usize| keeps >> (index % 64) & 1 == 1;
        let transactions = old.iter().flat_map(|mined| mined.transactions.clone());
        let (kept, lost): (Vec<_>, Vec<_>) =
            transactions.enumerate().partition(|(index, _)| bit(*index));
        // Blocks of the same height have the same time, as on Base.
        let time_of = |index: usize, before: UnixTime| {
            old.get(index).map_or(before, |mined| mined.block.timestamp)
        };
        let mut kept: Vec<Envelope> = kept.into_iter().map(|(_, envelope)| envelope).collect();
        // What does not stand any more is checked by those who build the new blocks.
        for index in 0..n_new {
            let time = time_of(index, self.head().block.timestamp);
            let n_here = kept.len().div_ceil(n_new - index);
            let here: Vec<Envelope> = kept.drain(..n_here).collect();
            let mut next = self.head().state.account_nonces.clone();
            let valid = here.into_iter().filter(|envelope| {
                let expected = next.entry(envelope.sender).or_default();
                let fits = *expected == envelope.account_nonce;
                *expected += u64::from(fits);
                fits
            });
            let valid: Vec<Envelope> = valid.collect();
            self.append(time, valid);
        }
        if !forgets {
            for (_, envelope) in lost {
                self.take(&envelope);
            }
        }
    }

    fn append(&mut self, time: UnixTime, transactions: Vec<Envelope>) {
        let parent = self.canonical.last().map(|hash| &self.blocks[hash]);
        let parent_hash = parent.map_or(B256::ZERO, |mined| mined.block.hash);
        let number = u64::try_from(self.canonical.len()).expect("the chain is short");
        let after = parent.map_or(0, |mined| mined.block.timestamp.seconds() + BLOCK_SECONDS);
        let timestamp = UnixTime::from_seconds(time.seconds().max(after));
        let hash = keccak256(format!("{parent_hash} {number} {}", self.blocks.len()));
        let block = Block {
            number,
            hash,
            parent_hash,
            timestamp,
            base_fee_wei: Some(self.base_fee_wei),
            transaction_hashes: transactions.iter().map(|envelope| envelope.hash).collect(),
        };
        let mut state = parent.map(|mined| mined.state.clone()).unwrap_or_default();
        let mut receipts = Vec::with_capacity(transactions.len());
        let mut n_logs = 0;
        for envelope in &transactions {
            let receipt = execute(&mut state, envelope, &block, n_logs);
            n_logs += receipt.logs.len();
            receipts.push(receipt);
        }
        let is_spent =
            |envelope: &Envelope| envelope.account_nonce < state.account_nonce(envelope.sender);
        self.pool.retain(|envelope| !is_spent(envelope));
        self.canonical.push(hash);
        self.blocks.insert(hash, Mined { block, transactions, receipts, state });
    }

    /// Every transaction of `senders` that the network has or ever had in a block.
    pub(super) fn seen_of(&self, senders: &BTreeSet<Address>) -> BTreeSet<B256> {
        let mined = self.blocks.values().flat_map(|mined| &mined.transactions);
        mined
            .chain(&self.pool)
            .filter(|envelope| senders.contains(&envelope.sender))
            .map(|envelope| envelope.hash)
            .collect()
    }
}
