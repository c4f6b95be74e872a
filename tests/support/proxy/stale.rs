//! What a node says that is some blocks behind: later blocks, receipts and states are unknown to
//! it, and its tags name older ones.

use serde_json::{Value, json};

use super::Target;

/// What becomes of a call to a node that is behind.
pub(super) enum Look {
    /// It knows nothing of what is asked about.
    Answered(Value),
    /// The node in front of us may answer this, up to what [`Behind::hide`] hides.
    Forward(Value),
}

/// A node whose newest block is `head`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    n_blocks: u64,
    head: u64,
}

impl Behind {
    pub(super) async fn new(target: &Target, n_blocks: u64) -> Option<Self> {
        let head = quantity(&target.ask("eth_blockNumber", json!([])).await?)?;
        Some(Self { n_blocks, head: head.saturating_sub(n_blocks) })
    }

    /// Turns tags into numbers, and refuses what this node cannot know.
    pub(super) async fn look(self, target: &Target, mut call: Value) -> Look {
        let method = call["method"].as_str().unwrap_or_default().to_owned();
        if method == "eth_getLogs" {
            return self.look_at_logs(target, call).await;
        }
        let Some(position) = block_parameter(&method) else { return Look::Forward(call) };
        let block = call["params"][position].clone();
        if let Some(hash) = block["blockHash"].as_str().or_else(|| a_hash(&block)) {
            return match self.knows(target, hash).await {
                true => Look::Forward(call),
                false => unknown(&call, &method),
            };
        }
        let number = match block.as_str() {
            Some("latest" | "pending") | None => self.head,
            Some(tag @ ("safe" | "finalized")) => self.tagged(target, tag).await,
            Some("earliest") => 0,
            Some(_) => quantity(&block).unwrap_or_default(),
        };
        if number > self.head {
            return unknown(&call, &method);
        }
        call["params"][position] = json!(format!("{number:#x}"));
        Look::Forward(call)
    }

    /// Takes out of an answer what is later than this node's head.
    pub(super) fn hide(self, call: &Value, result: &mut Value) {
        let is_later = |key: &str, result: &Value| {
            quantity(&result[key]).is_some_and(|number| number > self.head)
        };
        match call["method"].as_str().unwrap_or_default() {
            "eth_blockNumber" => *result = json!(format!("{:#x}", self.head)),
            "eth_getBlockByHash" if is_later("number", result) => *result = Value::Null,
            "eth_getTransactionReceipt" | "eth_getTransactionByHash"
                if is_later("blockNumber", result) =>
            {
                *result = Value::Null;
            }
            _ => (),
        }
    }

    async fn look_at_logs(self, target: &Target, mut call: Value) -> Look {
        let filter = call["params"][0].clone();
        if let Some(hash) = filter["blockHash"].as_str() {
            return match self.knows(target, hash).await {
                true => Look::Forward(call),
                false => unknown(&call, "eth_getLogs"),
            };
        }
        let from = quantity(&filter["fromBlock"]).unwrap_or(self.head);
        let to = quantity(&filter["toBlock"]).unwrap_or(self.head).min(self.head);
        if from > to {
            return Look::Answered(json!({ "result": [] }));
        }
        call["params"][0]["fromBlock"] = json!(format!("{from:#x}"));
        call["params"][0]["toBlock"] = json!(format!("{to:#x}"));
        Look::Forward(call)
    }

    async fn knows(self, target: &Target, hash: &str) -> bool {
        let block = target.ask("eth_getBlockByHash", json!([hash, false])).await;
        let number = block.and_then(|block| quantity(&block["number"]));
        number.is_some_and(|number| number <= self.head)
    }

    /// The tags of a node that is behind are behind as well.
    async fn tagged(self, target: &Target, tag: &str) -> u64 {
        let block = target.ask("eth_getBlockByNumber", json!([tag, false])).await;
        let number = block.and_then(|block| quantity(&block["number"])).unwrap_or_default();
        number.saturating_sub(self.n_blocks)
    }
}

/// Which parameter of a method names a block.
fn block_parameter(method: &str) -> Option<usize> {
    match method {
        "eth_getBlockByNumber" | "eth_getBlockReceipts" => Some(0),
        "eth_getTransactionCount"
        | "eth_getBalance"
        | "eth_getCode"
        | "eth_call"
        | "eth_estimateGas"
        | "eth_feeHistory"
        | "eth_simulateV1" => Some(1),
        "eth_getStorageAt" => Some(2),
        _ => None,
    }
}

/// Nodes answer null about blocks that they do not know, and an error about states.
fn unknown(call: &Value, method: &str) -> Look {
    let error = |code: i64, message: &str| {
        let error = json!({ "code": code, "message": message });
        Look::Answered(json!({ "error": error }))
    };
    match method {
        "eth_getBlockByNumber" | "eth_getBlockReceipts" => {
            Look::Answered(json!({ "result": null }))
        }
        "eth_getLogs" => error(-32_000, "unknown block"),
        _ if call.to_string().contains("blockHash") => error(-32_001, "Resource not found"),
        _ => error(-32_000, "header not found"),
    }
}

fn a_hash(block: &Value) -> Option<&str> {
    block.as_str().filter(|text| text.len() == 66)
}

pub(super) fn quantity(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}
