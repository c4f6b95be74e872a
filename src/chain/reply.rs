//! What a node tells of blocks and transactions, reduced to what is used.
//!
//! Read from the node's JSON directly: chains add transaction and receipt types of their own (OP's
//! deposits), and a type we never look into must not make a block unreadable.

use alloy::primitives::{Address, B256, Bytes, U64, U128, U256};
use serde::Deserialize;

use crate::domain::UnixTime;

/// One block, with the hashes of its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The height.
    pub number: u64,
    /// Which block of that height.
    pub hash: B256,
    /// The block it stands on.
    pub parent_hash: B256,
    /// The time contracts see in it.
    pub timestamp: UnixTime,
    /// What each gas costs in it before any priority fee, in wei; `None` before EIP-1559.
    pub base_fee_wei: Option<u128>,
    /// Transactions in order.
    pub transaction_hashes: Vec<B256>,
}

/// What a mined transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub transaction_hash: B256,
    /// The block it stands in.
    pub block_hash: B256,
    /// That block's height.
    pub block_number: u64,
    /// Whether it did not revert.
    pub succeeded: bool,
    /// Everything it cost, in wei: gas and, where the chain charges one, the L1 data fee.
    pub fee_wei: U256,
    /// How much gas it used.
    pub gas_used: u64,
    /// The part of `fee_wei` that is the L1 data fee, in wei; zero where the chain charges none.
    pub l1_fee_wei: U256,
    /// What it emitted, in order.
    pub logs: Vec<Log>,
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The contract that emitted it.
    pub address: Address,
    /// The topics, the event's signature first.
    pub topics: Vec<B256>,
    /// The fields that are not topics.
    pub data: Bytes,
    /// The index within the block.
    pub log_index: u64,
    /// The transaction that emitted it.
    pub transaction_hash: B256,
    /// The block it stands in.
    pub block_hash: B256,
    /// That block's height.
    pub block_number: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlockReply {
    number: U64,
    hash: B256,
    parent_hash: B256,
    timestamp: U64,
    #[serde(default)]
    base_fee_per_gas: Option<U128>,
    transactions: Vec<B256>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReceiptReply {
    transaction_hash: B256,
    block_hash: B256,
    block_number: U64,
    status: U64,
    gas_used: U64,
    effective_gas_price: U128,
    #[serde(default)]
    l1_fee: Option<U256>,
    logs: Vec<LogReply>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogReply {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
    log_index: U64,
    transaction_hash: B256,
    block_hash: B256,
    block_number: U64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FeeHistoryReply {
    pub(super) base_fee_per_gas: Vec<U128>,
    #[serde(default)]
    pub(super) reward: Option<Vec<Vec<U128>>>,
}

impl From<BlockReply> for Block {
    fn from(reply: BlockReply) -> Self {
        Self {
            number: reply.number.to(),
            hash: reply.hash,
            parent_hash: reply.parent_hash,
            timestamp: UnixTime::from_seconds(reply.timestamp.to()),
            base_fee_wei: reply.base_fee_per_gas.map(|fee| fee.to()),
            transaction_hashes: reply.transactions,
        }
    }
}

impl From<ReceiptReply> for Receipt {
    fn from(reply: ReceiptReply) -> Self {
        let gas_fee =
            U256::from(reply.gas_used).saturating_mul(U256::from(reply.effective_gas_price));
        let l1_fee_wei = reply.l1_fee.unwrap_or_default();
        Self {
            transaction_hash: reply.transaction_hash,
            block_hash: reply.block_hash,
            block_number: reply.block_number.to(),
            succeeded: reply.status == U64::from(1),
            fee_wei: gas_fee.saturating_add(l1_fee_wei),
            gas_used: reply.gas_used.to(),
            l1_fee_wei,
            logs: reply.logs.into_iter().map(Log::from).collect(),
        }
    }
}

impl From<LogReply> for Log {
    fn from(reply: LogReply) -> Self {
        Self {
            address: reply.address,
            topics: reply.topics,
            data: reply.data,
            log_index: reply.log_index.to(),
            transaction_hash: reply.transaction_hash,
            block_hash: reply.block_hash,
            block_number: reply.block_number.to(),
        }
    }
}
