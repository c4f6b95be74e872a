//! One endpoint of one chain.

use std::time::Duration;

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{Address, B256, Bytes, TxKind, U64, U128, U256},
    rpc::{
        client::RpcClient,
        json_rpc::{RpcRecv, RpcSend},
        types::{Filter, TransactionRequest},
    },
    sol_types::SolCall,
    transports::http::Http,
};
use secrecy::{ExposeSecret, SecretString};

use crate::domain::{Authorization, ChainId};

use super::{
    Block, ChainError, Log, Receipt,
    error::ChainErrorKind,
    reply::{BlockReply, FeeHistoryReply, LogReply, ReceiptReply},
    token::{Token, authorization_topics},
};

/// How long a TCP and TLS connection to an endpoint may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many blocks one search for logs spans at first. Many endpoints allow ten thousand; this many
/// answer in a time that fits into a block's.
const SEARCH_SPAN_BLOCKS: u64 = 1_000;
/// How many calls a search may take.
const N_SEARCHES_MAX: usize = 400;

/// How to reach a chain.
#[derive(Debug, Clone)]
pub struct ChainOptions {
    /// Which chain the endpoint must be of.
    pub chain_id: ChainId,
    /// The JSON-RPC endpoint. A secret, because providers put keys into it.
    pub rpc_url: SecretString,
    /// How long one call may take, answer included.
    pub timeout: Duration,
}

/// What the fee market asks at the moment, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeFacts {
    /// The base fee of the next block.
    pub base_fee_wei: u128,
    /// The median priority fee of the latest block, where the node tells.
    pub priority_fee_wei: u128,
}

/// A connection to one chain. Cheap to clone; every call has a timeout and no call is retried.
#[derive(Debug, Clone)]
pub struct Chain {
    chain_id: ChainId,
    pub(super) rpc: RpcClient,
}

impl Chain {
    /// Prepares the connection. Nothing is sent yet; see [`Chain::check`].
    pub fn new(options: &ChainOptions) -> Result<Self, ChainError> {
        let unusable = |reason: String| ChainError {
            operation: "prepare the endpoint".to_owned(),
            chain_id: options.chain_id,
            source: ChainErrorKind::Unusable(reason),
        };
        // The URL is not repeated in the error: it may hold a key.
        let url = reqwest::Url::parse(options.rpc_url.expose_secret())
            .map_err(|e| unusable(format!("rpc_url is not a URL: {e}")))?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            .build()
            .map_err(|e| unusable(e.without_url().to_string()))?;
        let rpc = RpcClient::new(Http::with_client(http, url), true);
        Ok(Self { chain_id: options.chain_id, rpc })
    }

    /// Which chain this is.
    pub const fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    /// Asks the endpoint which chain it is of, and refuses another one.
    pub async fn check(&self) -> Result<(), ChainError> {
        let operation = || "read the chain id".to_owned();
        let answered: U64 = self.call(operation, "eth_chainId", ()).await?;
        self.expect_chain(answered)
    }

    /// Refuses an endpoint that answered `eth_chainId` with another chain's id.
    pub(super) fn expect_chain(&self, answered: U64) -> Result<(), ChainError> {
        if answered.to::<u64>() == self.chain_id.eip155() {
            return Ok(());
        }
        let operation = "read the chain id".to_owned();
        Err(self.unusable(operation, format!("the endpoint is of eip155:{answered}")))
    }

    /// The newest block.
    pub async fn latest_block(&self) -> Result<Block, ChainError> {
        let operation = || "read the latest block".to_owned();
        self.block(operation, BlockNumberOrTag::Latest)
            .await?
            .ok_or_else(|| self.unusable(operation(), "the node has no latest block".to_owned()))
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

    /// How many transactions of `address` are mined: its next account nonce.
    pub async fn account_nonce(&self, address: Address) -> Result<u64, ChainError> {
        let operation = || format!("read the account nonce of {address}");
        let count: U64 =
            self.call(operation, "eth_getTransactionCount", (address, "latest")).await?;
        Ok(count.to())
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

    /// Hands signed bytes to the network.
    ///
    /// No answer proves anything: an error may follow a transaction that was taken, and an
    /// acceptance may be forgotten. Only a block tells.
    pub async fn send(&self, hash: B256, raw: &[u8]) -> Result<(), ChainError> {
        let raw = Bytes::copy_from_slice(raw);
        let answered: B256 = self
            .call(|| format!("send transaction {hash}"), "eth_sendRawTransaction", (raw,))
            .await?;
        if answered != hash {
            tracing::warn!(transaction.hash = %hash, answered = %answered, "a node answered another hash");
        }
        Ok(())
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

    async fn call<Params: RpcSend, Reply: RpcRecv>(
        &self,
        operation: impl Fn() -> String,
        method: &'static str,
        params: Params,
    ) -> Result<Reply, ChainError> {
        metrics::counter!("quittance_rpc_calls_total", "method" => method).increment(1);
        self.rpc.request(method, params).await.map_err(|source| {
            metrics::counter!("quittance_rpc_errors_total", "method" => method).increment(1);
            self.failed(operation(), ChainErrorKind::of_call(source))
        })
    }

    /// The error of answers that do not fit together.
    pub fn contradiction(&self, what: String) -> ChainError {
        self.unusable("make sense of the endpoint's answers".to_owned(), what)
    }

    pub(super) fn unusable(&self, operation: String, reason: String) -> ChainError {
        self.failed(operation, ChainErrorKind::Unusable(reason))
    }

    pub(super) const fn failed(&self, operation: String, source: ChainErrorKind) -> ChainError {
        ChainError { operation, chain_id: self.chain_id, source }
    }
}
