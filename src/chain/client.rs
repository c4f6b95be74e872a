//! What is read from one chain, whichever of its endpoints answers.

use std::{sync::Arc, time::Duration};

use alloy::{
    eips::{BlockId, BlockNumberOrTag},
    primitives::{Address, B256, Bytes, TxKind, U64, U128, U256},
    rpc::{
        json_rpc::{RpcRecv, RpcSend},
        types::{Filter, TransactionRequest},
    },
    sol_types::SolCall,
    transports::RpcError,
};
use futures_util::future::join_all;
use secrecy::SecretString;

use crate::domain::{Authorization, ChainId, UnixTime};

use super::{
    Block, ChainError, Log, Receipt,
    asset::Assets,
    endpoints::{Endpoint, Endpoints, Failure},
    error::ChainErrorKind,
    reply::{BlockReply, FeeHistoryReply, LogReply, ReceiptReply},
    token::{Token, authorization_topics},
    trial::Trials,
};

/// How many blocks one search for logs spans at first. Many endpoints allow ten thousand; this many
/// answer in a time that fits into a block's.
const SEARCH_SPAN_BLOCKS: u64 = 1_000;
/// How many calls a search may take.
const N_SEARCHES_MAX: usize = 400;

/// How to reach a chain.
#[derive(Debug, Clone)]
pub struct ChainOptions {
    /// Which chain the endpoints must be of.
    pub chain_id: ChainId,
    /// The JSON-RPC endpoints, the preferred first. Secrets, because providers put keys into them.
    pub rpc_urls: Vec<SecretString>,
    /// How long one call may take, answer included.
    pub timeout: Duration,
    /// How old an endpoint's newest block may be, if that is limited.
    pub head_age_max: Option<Duration>,
    /// Tells the time that the age of a block is measured by.
    pub clock: fn() -> UnixTime,
}

/// What the fee market asks at the moment, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeFacts {
    /// The base fee of the next block.
    pub base_fee_wei: u128,
    /// The median priority fee of the latest block, where the node tells.
    pub priority_fee_wei: u128,
}

/// A connection to one chain. Cheap to clone; every call has a timeout, and a read that one endpoint
/// does not answer is tried once with each of the others that are fit.
#[derive(Debug, Clone)]
pub struct Chain {
    chain_id: ChainId,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) assets: Assets,
    pub(super) trials: Trials,
}

impl Chain {
    /// Prepares the connections. Nothing is sent yet; see [`Chain::check`].
    pub fn new(options: &ChainOptions) -> Result<Self, ChainError> {
        let endpoints = Arc::new(Endpoints::new(options)?);
        Ok(Self {
            chain_id: options.chain_id,
            endpoints,
            assets: Assets::default(),
            trials: Trials::default(),
        })
    }

    /// Which chain this is.
    pub const fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    /// The newest block.
    pub async fn latest_block(&self) -> Result<Block, ChainError> {
        let endpoints = &self.endpoints;
        self.ask(
            || "read the latest block".to_owned(),
            |endpoint| async move {
                let block = endpoint.newest_block().await?;
                endpoints.note_head(&endpoint, block.number, block.timestamp);
                Ok(block)
            },
        )
        .await
    }

    /// The canonical block of that height, or `None` if there is none yet.
    pub async fn block_at(&self, number: u64) -> Result<Option<Block>, ChainError> {
        self.block(|| format!("read block {number}"), BlockNumberOrTag::Number(number)).await
    }

    /// The newest block that the sequencer has published with all before it (`safe`).
    pub async fn safe_block(&self) -> Result<Option<Block>, ChainError> {
        self.block(|| "read the safe block".to_owned(), BlockNumberOrTag::Safe).await
    }

    /// The newest block that can no longer be replaced (`finalized`).
    pub async fn finalized_block(&self) -> Result<Option<Block>, ChainError> {
        self.block(|| "read the finalized block".to_owned(), BlockNumberOrTag::Finalized).await
    }

    /// What a transaction did, or `None` if it is not mined.
    pub async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, ChainError> {
        let operation = || format!("read receipt of {hash}");
        let reply: Option<ReceiptReply> =
            self.call(operation, "eth_getTransactionReceipt", (hash,)).await?;
        let receipt = reply.map(Receipt::from);
        if receipt.as_ref().is_some_and(|receipt| receipt.transaction_hash != hash) {
            return Err(self.unusable(operation(), "the receipt is of another".to_owned()));
        }
        Ok(receipt)
    }

    /// The logs of one block by which any of `assets` used up an authorization.
    pub async fn authorization_logs(
        &self,
        block_hash: B256,
        assets: &[Address],
    ) -> Result<Vec<Log>, ChainError> {
        let filter = Filter::new()
            .at_block_hash(block_hash)
            .address(assets.to_vec())
            .event_signature(authorization_topics().to_vec());
        self.logs(|| format!("read logs of block {block_hash}"), filter).await
    }

    /// The logs by which `asset` used up one authorization, in blocks `from..=to`.
    ///
    /// Endpoints limit the range of one search, each to a number of its own: a refused range is
    /// halved. Never more than [`N_SEARCHES_MAX`] calls.
    pub async fn authorization_history(
        &self,
        asset: Address,
        authorization: &Authorization,
        from: u64,
        to: u64,
    ) -> Result<Vec<Log>, ChainError> {
        let operation =
            |from, to| format!("search blocks {from} to {to} for nonce {}", authorization.nonce);
        let (mut found, mut start, mut span) = (Vec::new(), from, SEARCH_SPAN_BLOCKS);
        for _ in 0..N_SEARCHES_MAX {
            if start > to {
                return Ok(found);
            }
            let end = to.min(start.saturating_add(span - 1));
            let filter = Filter::new()
                .select(start..=end)
                .address(asset)
                .event_signature(authorization_topics().to_vec())
                .topic1(authorization.payer.into_word())
                .topic2(*authorization.nonce.as_bytes());
            match self.logs(|| operation(start, end), filter).await {
                Ok(logs) => {
                    found.extend(logs);
                    start = end.saturating_add(1);
                }
                Err(error) if error.is_answer() && span > 1 => span /= 2,
                Err(error) => return Err(error),
            }
        }
        Err(self.unusable(operation(from, to), "the range takes too many calls".to_owned()))
    }

    /// How many transactions of `address` stand in the chain up to `at`: its next account nonce then.
    pub async fn account_nonce_at(
        &self,
        address: Address,
        at: impl Into<BlockId>,
    ) -> Result<u64, ChainError> {
        let operation = || format!("read the account nonce of {address}");
        let at: BlockId = at.into();
        let count: U64 = self.call(operation, "eth_getTransactionCount", (address, at)).await?;
        Ok(count.to())
    }

    /// The least gas at which a call does not fail as a whole. Only a defect of ours asks.
    pub async fn estimate_gas(&self, to: Address, data: Bytes) -> Result<u64, ChainError> {
        let request = TransactionRequest {
            to: Some(TxKind::Call(to)),
            input: data.into(),
            ..TransactionRequest::default()
        };
        let gas: U64 =
            self.call(|| format!("estimate a call of {to}"), "eth_estimateGas", (request,)).await?;
        Ok(gas.to())
    }

    /// The account nonce of `address` at `at`, if every endpoint answers, and the same.
    ///
    /// `None` where one did not answer or they differ: then nothing is known. A single endpoint agrees
    /// with itself.
    ///
    /// # Errors
    /// When none answers.
    pub async fn account_nonce_agreed(
        &self,
        address: Address,
        at: BlockNumberOrTag,
    ) -> Result<Option<u64>, ChainError> {
        let endpoints = &self.endpoints;
        let answers = join_all(endpoints.list.iter().map(Arc::clone).map(|endpoint| async move {
            let answer = match endpoints.identify_if_new(&endpoint).await {
                Ok(()) => {
                    let counted = endpoint.call("eth_getTransactionCount", (address, at)).await;
                    endpoints.note_outcome(&endpoint, counted)
                }
                Err(source) => Err(source),
            };
            answer.map(|count: U64| count.to::<u64>()).map_err(|source| (endpoint.name, source))
        }));
        let (mut agreed, mut n_answers, mut is_agreed, mut failure) = (None, 0_usize, true, None);
        for answer in answers.await {
            match answer {
                Ok(count) => {
                    is_agreed &= *agreed.get_or_insert(count) == count;
                    n_answers = n_answers.saturating_add(1);
                }
                Err(source) => {
                    failure.get_or_insert(source);
                }
            }
        }
        match failure {
            Some(failure) if n_answers == 0 => {
                Err(self.failed(format!("read the account nonce of {address}"), failure))
            }
            Some(_) => Ok(None),
            None => Ok(agreed.filter(|_| is_agreed)),
        }
    }

    /// The code of `address`, empty if it has none.
    pub async fn code(&self, address: Address) -> Result<Bytes, ChainError> {
        let operation = || format!("read the code of {address}");
        self.call(operation, "eth_getCode", (address, "latest")).await
    }

    /// The balance of `address` in the chain's own coin, in wei.
    pub async fn balance_wei(&self, address: Address) -> Result<U256, ChainError> {
        self.call(
            || format!("read the balance of {address}"),
            "eth_getBalance",
            (address, "latest"),
        )
        .await
    }

    /// How much of a token `account` holds, in base units.
    pub async fn token_balance(
        &self,
        asset: Address,
        account: Address,
    ) -> Result<U256, ChainError> {
        let operation = || format!("read how much of {asset} {account} holds");
        let request = TransactionRequest {
            to: Some(TxKind::Call(asset)),
            input: Token::balanceOfCall { account }.abi_encode().into(),
            ..TransactionRequest::default()
        };
        let answer: Bytes = self.call(operation, "eth_call", (request, "latest")).await?;
        Token::balanceOfCall::abi_decode_returns(&answer)
            .map_err(|error| self.unusable(operation(), error.to_string()))
    }

    /// What the fee market asks now.
    pub async fn fee_facts(&self) -> Result<FeeFacts, ChainError> {
        let operation = || "read the fee history".to_owned();
        let parameters = (U64::from(1), "latest", [50.0_f64]);
        let history: FeeHistoryReply = self.call(operation, "eth_feeHistory", parameters).await?;
        let base_fee = history
            .base_fee_per_gas
            .last()
            .ok_or_else(|| self.unusable(operation(), "the node names no base fee".to_owned()))?;
        let priority_fee = history
            .reward
            .and_then(|blocks| blocks.last().and_then(|percentiles| percentiles.first().copied()))
            .unwrap_or(U128::ZERO);
        Ok(FeeFacts { base_fee_wei: base_fee.to(), priority_fee_wei: priority_fee.to() })
    }

    async fn block(
        &self,
        operation: impl Fn() -> String,
        tag: BlockNumberOrTag,
    ) -> Result<Option<Block>, ChainError> {
        let reply: Option<BlockReply> =
            self.call(operation, "eth_getBlockByNumber", (tag, false)).await?;
        Ok(reply.map(Block::from))
    }

    async fn logs(
        &self,
        operation: impl Fn() -> String,
        filter: Filter,
    ) -> Result<Vec<Log>, ChainError> {
        let replies: Vec<LogReply> = self.call(operation, "eth_getLogs", (filter,)).await?;
        Ok(replies.into_iter().map(Log::from).collect())
    }

    pub(super) async fn call<Params: RpcSend, Reply: RpcRecv>(
        &self,
        operation: impl Fn() -> String,
        method: &'static str,
        params: Params,
    ) -> Result<Reply, ChainError> {
        let asked = self.ask(operation, |endpoint| {
            let params = params.clone();
            async move { endpoint.call(method, params).await }
        });
        asked.await
    }

    pub(super) async fn ask<T, Asked: Future<Output = Result<T, ChainErrorKind>>>(
        &self,
        operation: impl Fn() -> String,
        question: impl Fn(Arc<Endpoint>) -> Asked,
    ) -> Result<T, ChainError> {
        let asked = self.endpoints.ask(question).await;
        asked.map_err(|failure| self.failed(operation(), failure))
    }

    /// The error of answers that do not fit together.
    pub fn contradiction(&self, what: String) -> ChainError {
        self.unusable("make sense of the endpoint's answers".to_owned(), what)
    }

    pub(super) fn unusable(&self, operation: String, reason: String) -> ChainError {
        let source = ChainErrorKind::Unusable(reason);
        ChainError { operation, chain_id: self.chain_id, endpoint: None, source }
    }

    pub(super) fn failed(&self, operation: String, (endpoint, source): Failure) -> ChainError {
        ChainError { operation, chain_id: self.chain_id, endpoint: Some(endpoint), source }
    }
}

impl Endpoint {
    /// The newest block this endpoint knows. A node without one is in trouble: it has not begun.
    pub(super) async fn newest_block(&self) -> Result<Block, ChainErrorKind> {
        let parameters = (BlockNumberOrTag::Latest, false);
        let reply: Option<BlockReply> = self.call("eth_getBlockByNumber", parameters).await?;
        reply.map(Block::from).ok_or(ChainErrorKind::Rpc(RpcError::NullResp))
    }
}
