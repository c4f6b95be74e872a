//! The local Base-like chain, started by `anvil-scripts/start.mjs`.

use std::{path::Path, process::Stdio, time::Duration};

use alloy::primitives::Address;
use anyhow::Context;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

use crate::domain::ChainId;

use super::Market;

/// How long the chain may take to be ready; a fork of a slow endpoint takes longest.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How to start the chain.
#[derive(Debug, Clone, Default)]
pub struct ChainRequest {
    /// 8453 or 84532; the script's default otherwise.
    pub chain_id: Option<u64>,
    /// Seconds between blocks; a block for each transaction otherwise.
    pub block_time: Option<u64>,
    /// Blocks only on request.
    pub no_mining: bool,
    /// The port; a free one otherwise.
    pub port: Option<u16>,
    /// How far `safe` is behind the head; `finalized` is twice as far.
    pub slots_in_an_epoch: Option<u64>,
}

/// An account of the local chain, key included: all of them are public.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The address.
    pub address: Address,
    /// The private key, in hex.
    pub private_key: String,
}

/// A running chain. It ends when this process does, however that happens.
#[derive(Debug)]
pub struct LocalChain {
    /// Where it answers.
    pub rpc_url: String,
    /// Which chain it is.
    pub chain_id: ChainId,
    /// Whether it is a fork of another.
    pub is_fork: bool,
    /// USDC.
    pub usdc: Address,
    /// USDC's EIP-712 name.
    pub usdc_name: String,
    /// USDC's EIP-712 version.
    pub usdc_version: String,
    /// The hot wallet.
    pub wallet: Account,
    /// Buyers with money.
    pub payers: Vec<Account>,
    /// A buyer without.
    pub pauper: Account,
    /// Somebody to pay.
    pub payee: Account,
    /// Somebody with gas, who submits other people's authorizations.
    pub stranger: Account,
    script: Child,
    // The script ends when this closes.
    lifeline: ChildStdin,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    rpc_url: String,
    chain_id: u64,
    forked: bool,
    usdc: Address,
    usdc_name: String,
    usdc_version: String,
    wallet: Account,
    payers: Vec<Account>,
    pauper: Account,
    payee: Account,
    stranger: Account,
}

impl LocalChain {
    /// Starts a chain with the scripts in `scripts`.
    pub async fn start(scripts: &Path, request: &ChainRequest) -> anyhow::Result<Self> {
        let start = scripts.join("start.mjs");
        if !scripts.join("node_modules").is_dir() {
            anyhow::bail!("{} is not set up; run `make setup`", scripts.display());
        }
        let mut command = Command::new("node");
        command.arg(&start);
        for (flag, value) in [
            ("--chain-id", request.chain_id),
            ("--block-time", request.block_time),
            ("--port", request.port.filter(|port| *port != 0).map(u64::from)),
            ("--slots-in-an-epoch", request.slots_in_an_epoch),
        ] {
            if let Some(value) = value {
                command.args([flag, &value.to_string()]);
            }
        }
        if request.no_mining {
            command.arg("--no-mining");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut script =
            command.process_group(0).kill_on_drop(true).spawn().context("start node")?;
        let lifeline = script.stdin.take().context("hold the chain's standard input")?;
        let output = script.stdout.take().context("read the chain's standard output")?;
        let mut line = String::new();
        let mut output = BufReader::new(output);
        tokio::time::timeout(START_TIMEOUT, output.read_line(&mut line))
            .await
            .context("the local chain did not become ready")??;
        if line.is_empty() {
            anyhow::bail!("the local chain could not be started");
        }
        let ready: Ready = serde_json::from_str(&line).context("read what the local chain says")?;
        Ok(Self {
            rpc_url: ready.rpc_url,
            chain_id: format!("eip155:{}", ready.chain_id)
                .parse()
                .map_err(|_| anyhow::anyhow!("the local chain has no usable chain id"))?,
            is_fork: ready.forked,
            usdc: ready.usdc,
            usdc_name: ready.usdc_name,
            usdc_version: ready.usdc_version,
            wallet: ready.wallet,
            payers: ready.payers,
            pauper: ready.pauper,
            payee: ready.payee,
            stranger: ready.stranger,
            script,
            lifeline,
        })
    }

    /// What a buyer on this chain pays with.
    pub fn market(&self) -> Market {
        Market {
            chain_id: self.chain_id,
            asset: self.usdc,
            token_name: self.usdc_name.clone(),
            token_version: self.usdc_version.clone(),
        }
    }

    /// Ends the chain.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { mut script, lifeline, .. } = self;
        drop(lifeline);
        match tokio::time::timeout(STOP_TIMEOUT, script.wait()).await {
            Ok(ended) => ended.map(drop).context("end the local chain"),
            Err(_) => script.kill().await.context("kill the local chain"),
        }
    }
}
