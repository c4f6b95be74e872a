//! Straight talk to anvil: stepping time and blocks, and looking at the chain with other eyes than
//! the service's.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, Bytes, U256};
use serde_json::{Value, json};

/// The chain's node.
#[derive(Debug, Clone)]
pub struct Node {
    url: String,
    http: reqwest::Client,
}

impl Node {
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), http: reqwest::Client::new() }
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The result of a JSON-RPC call.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The result of a JSON-RPC call, or its error object.
    pub async fn try_call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut answer: Value =
            self.http.post(&self.url).json(&request).send().await.unwrap().json().await.unwrap();
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].take()),
        }
    }

    /// Sends a raw transaction: nothing, or the error object.
    pub async fn send_raw(&self, raw: &str) -> Result<(), Value> {
        self.try_call("eth_sendRawTransaction", json!([raw])).await.map(drop)
    }

    pub async fn mine(&self, n_blocks: u64) {
        self.call("anvil_mine", json!([format!("{n_blocks:#x}")])).await;
    }

    /// Moves the time of the next block.
    pub async fn increase_time(&self, seconds: u64) {
        self.call("evm_increaseTime", json!([seconds])).await;
    }

    /// Sets the time of the next block, in Unix seconds. It cannot go back.
    pub async fn set_time(&self, seconds: u64) {
        self.call("evm_setNextBlockTimestamp", json!([seconds])).await;
    }

    /// The base fee of the next block. What is sent before it and offers less is evicted by it.
    pub async fn next_base_fee(&self, wei: u64) {
        self.call("anvil_setNextBlockBaseFeePerGas", json!([format!("{wei:#x}")])).await;
    }

    /// The gas of coming blocks. A small one keeps transactions in the pool.
    pub async fn set_block_gas_limit(&self, gas: u64) {
        self.call("anvil_setBlockGasLimit", json!([format!("{gas:#x}")])).await;
    }

    /// As if the account had sent so many transactions. What it has in the pool below is
    /// evicted by the next block.
    pub async fn set_nonce(&self, address: Address, account_nonce: u64) {
        self.call("anvil_setNonce", json!([address, format!("{account_nonce:#x}")])).await;
    }

    /// What the account can pay gas with.
    pub async fn set_balance(&self, address: Address, wei: u128) {
        self.call("anvil_setBalance", json!([address, format!("{wei:#x}")])).await;
    }

    pub async fn set_code(&self, address: Address, code: &Bytes) {
        self.call("anvil_setCode", json!([address, code])).await;
    }

    /// Makes the pool forget a transaction.
    pub async fn drop_transaction(&self, hash: B256) {
        self.call("anvil_dropTransaction", json!([hash])).await;
    }

    /// Makes the pool forget everything.
    pub async fn drop_all_transactions(&self) {
        self.call("anvil_dropAllTransactions", json!([])).await;
    }

    /// Takes the newest blocks away without others in their place.
    pub async fn rollback(&self, n_blocks: u64) {
        self.call("anvil_rollback", json!([n_blocks])).await;
    }

    /// Replaces the newest `depth` blocks by others that hold `raw` transactions, the first of the
    /// pair in the block at the offset that is the second.
    pub async fn reorg(&self, depth: u64, raw: &[(String, u64)]) {
        let pairs: Vec<Value> = raw.iter().map(|(raw, offset)| json!([raw, offset])).collect();
        self.call("anvil_reorg", json!([depth, pairs])).await;
    }

    pub async fn block_number(&self) -> u64 {
        quantity(&self.call("eth_blockNumber", json!([])).await)
    }

    /// How many transactions wait in the pool, ready to be mined.
    pub async fn n_pending(&self) -> u64 {
        quantity(&self.call("txpool_status", json!([])).await["pending"])
    }

    /// What one account has in the pool, by account nonce, be it ready or waiting behind a gap.
    pub async fn pool(&self, sender: Address) -> BTreeMap<u64, B256> {
        let content = self.call("txpool_content", json!([])).await;
        let of_sender = |part: &str| {
            let accounts = content[part].as_object().unwrap().clone();
            accounts.into_iter().filter(move |(account, _)| account.parse() == Ok(sender))
        };
        ["pending", "queued"]
            .into_iter()
            .flat_map(of_sender)
            .flat_map(|(_, by_nonce)| by_nonce.as_object().unwrap().clone())
            .map(|(nonce, sent)| {
                (nonce.parse().unwrap(), sent["hash"].as_str().unwrap().parse().unwrap())
            })
            .collect()
    }

    /// The hash of the canonical block at a height.
    pub async fn block_hash(&self, number: u64) -> Option<B256> {
        let parameters = json!([format!("{number:#x}"), false]);
        let block = self.call("eth_getBlockByNumber", parameters).await;
        Some(block["hash"].as_str()?.parse().unwrap())
    }

    /// A transaction that the node knows, mined or not.
    pub async fn transaction(&self, hash: B256) -> Option<Value> {
        let found = self.call("eth_getTransactionByHash", json!([hash])).await;
        (!found.is_null()).then_some(found)
    }

    pub async fn account_nonce(&self, address: Address) -> u64 {
        quantity(&self.call("eth_getTransactionCount", json!([address, "latest"])).await)
    }

    pub async fn receipt(&self, hash: B256) -> Option<Value> {
        let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await;
        (!receipt.is_null()).then_some(receipt)
    }

    pub async fn token_balance(&self, token: Address, account: Address) -> u64 {
        let data = format!("0x70a08231{}", alloy::hex::encode(account.into_word()));
        let answer = self.call("eth_call", json!([{ "to": token, "data": data }, "latest"])).await;
        answer.as_str().unwrap().parse::<U256>().unwrap().to()
    }

    /// Waits until the pool holds exactly `n` transactions.
    pub async fn until_pending(&self, n: u64) {
        for _ in 0..1_000 {
            if self.n_pending().await == n {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the pool holds {} transactions, not {n}, after 20 seconds", self.n_pending().await);
    }
}

fn quantity(value: &Value) -> u64 {
    let text = value.as_str().unwrap().trim_start_matches("0x");
    u64::from_str_radix(text, 16).unwrap()
}
