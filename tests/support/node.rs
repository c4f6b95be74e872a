//! Straight talk to anvil: stepping time and blocks, and looking at the chain with other eyes than
//! the service's.

use alloy::primitives::{Address, B256, U256};
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

    /// The result of a JSON-RPC call.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer: Value =
            self.http.post(&self.url).json(&request).send().await.unwrap().json().await.unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    pub async fn mine(&self, n_blocks: u64) {
        self.call("anvil_mine", json!([format!("{n_blocks:#x}")])).await;
    }

    /// Moves the time of the next block.
    pub async fn increase_time(&self, seconds: u64) {
        self.call("evm_increaseTime", json!([seconds])).await;
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
