//! An anvil of our own, with the blocks of another.

use std::{path::PathBuf, process::Stdio, time::Duration};

use quittance::domain::ChainId;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::Node;

/// A running anvil. Dropping it kills the process.
pub(super) struct SpareNode {
    pub(super) url: String,
    process: Child,
}

impl SpareNode {
    /// Starts with the blocks, the states and the way of mining that `node` has now, and ends that
    /// node's mining.
    pub(super) async fn start(node: &Node, chain_id: ChainId) -> Self {
        let interval = node.call("anvil_getIntervalMining", json!([])).await;
        let automine = node.call("anvil_getAutomine", json!([])).await;
        node.call("evm_setIntervalMining", json!([0])).await;
        node.call("evm_setAutomine", json!([false])).await;
        // With the older states too, because services ask about the state at a block.
        let state = node.call("anvil_dumpState", json!([true])).await;
        let block = node.call("eth_getBlockByNumber", json!(["latest", false])).await;
        let gas_limit = block["gasLimit"].as_str().unwrap().trim_start_matches("0x");
        let gas_limit = u64::from_str_radix(gas_limit, 16).unwrap();
        // The states of a few hundred blocks are larger than what anvil reads otherwise.
        let mut command = Command::new(program());
        command
            .args(["--host", "127.0.0.1", "--port", "0", "--network", "optimism"])
            .args(["--accounts", "0", "--no-mining", "--no-request-size-limit"])
            .args(["--chain-id", &chain_id.eip155().to_string()])
            .args(["--gas-limit", &gas_limit.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(address) = line.strip_prefix("Listening on ") {
                    return format!("http://{address}");
                }
            }
            panic!("anvil ended before it listened");
        };
        let url = tokio::time::timeout(Duration::from_secs(20), listening).await.unwrap();
        // Output that no one reads would block anvil in the end.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let this = Node::new(&url);
        this.call("anvil_setLoggingEnabled", json!([false])).await;
        this.call("anvil_loadState", json!([state])).await;
        if !interval.is_null() {
            this.call("evm_setIntervalMining", json!([interval])).await;
        }
        this.call("evm_setAutomine", json!([automine])).await;
        Self { url, process }
    }

    /// Sends the process a signal by name.
    pub(super) async fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id().expect("the node runs"));
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    }
}

fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("ANVIL_BIN") {
        return named.into();
    }
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let package = format!("anvil-scripts/node_modules/@foundry-rs/anvil-linux-{machine}/bin/anvil");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(package)
}
