//! `quittance dev`: the newcomer's first command. What it prints is read by people.

use std::{net::SocketAddr, path::PathBuf, time::Instant};

use alloy::primitives::{
    B256, U256,
    utils::{format_ether, format_units},
};
use anyhow::Context;
use clap::Args;

use crate::{
    app::{
        self, Application,
        dev::{Buyer, ChainRequest, DevOptions, DevServices, wait_until_ready},
    },
    config::{LogFormatSetting, LogSettings},
    domain::Amount,
};

use super::serve::stop_signal;

/// What the first payment costs: one cent, in USDC's base units.
const FIRST_PRICE: &str = "10000";

#[derive(Debug, Args)]
pub(super) struct DevArguments {
    /// Where state and `dev.env` live.
    #[arg(long, value_name = "DIR", default_value = ".dev")]
    state_dir: PathBuf,
    /// The service's port; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// The port of liveness, readiness and metrics; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    operations_port: u16,
    /// The local chain's port; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    chain_port: u16,
    /// Postgres' port; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    postgres_port: u16,
    /// 8453 (Base) or 84532 (Base Sepolia). A fork has the id of what it forks.
    #[arg(long, value_name = "ID")]
    chain_id: Option<u64>,
    /// Seconds between blocks. Without it, every transaction gets a block at once.
    #[arg(long, value_name = "SECONDS")]
    block_time: Option<u64>,
    /// Where `start.mjs` of the local chain is.
    #[arg(long, value_name = "DIR", default_value = "anvil-scripts")]
    anvil_scripts: PathBuf,
    /// Show what the service logs.
    #[arg(long)]
    verbose: bool,
}

pub(super) async fn run(arguments: DevArguments) -> anyhow::Result<()> {
    let filter = if arguments.verbose { "info" } else { "error" };
    app::init_logs(&LogSettings { format: LogFormatSetting::Text, filter: filter.to_owned() });
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let options = DevOptions {
        state_dir: arguments.state_dir,
        anvil_scripts: arguments.anvil_scripts,
        chain: ChainRequest {
            chain_id: arguments.chain_id,
            block_time: arguments.block_time,
            port: Some(arguments.chain_port),
            ..ChainRequest::default()
        },
        port: arguments.port,
        operations_port: arguments.operations_port,
        postgres_port: arguments.postgres_port,
    };
    println!("Starting a private Postgres and a local chain …");
    let services = tokio::select! {
        started = DevServices::start(&options) => started?,
        () = &mut stop => return Ok(()),
    };
    let served = serve(&services, stop).await;
    let stopped = services.stop().await;
    println!("Stopped. Nothing is left running.");
    served.and(stopped)
}

async fn serve(services: &DevServices, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let application = Application::build(&services.settings).await?;
    let (service, operations) = (application.address(), application.operations_address());
    let keys = services.onboard().await?;
    let chain = &services.chain;
    println!();
    println!("  service     http://{service}");
    println!("  operations  http://{operations}  (/livez /readyz /metrics)");
    println!("  chain       {} at {}{}", chain.chain_id, chain.rpc_url, fork_note(chain.is_fork));
    println!("  USDC        {}", chain.usdc);
    println!("  database    {}", services.postgres.url("quittance"));
    println!();
    let introduction = async {
        wait_until_ready(operations).await?;
        first_payment(services, service, keys.merchant.reveal()).await?;
        let env = services.write_env(service, operations, &keys)?;
        println!("{} tells other programs where everything is. Try:", env.display());
        println!("  node anvil-scripts/pay.mjs --settle");
        println!("  curl http://{service}/supported");
        println!("Ctrl-C stops everything.");
        anyhow::Ok(())
    };
    let mut failure = None;
    let until_stopped = async {
        tokio::select! {
            () = stop => (),
            Err(error) = introduction => failure = Some(error),
        }
    };
    application.run_until(until_stopped).await?;
    failure.map_or(Ok(()), Err)
}

async fn first_payment(
    services: &DevServices,
    service: SocketAddr,
    api_key: &str,
) -> anyhow::Result<()> {
    let (local, chain) = (&services.chain, services.client()?);
    let buyer =
        Buyer::new(local.payers.first().context("the chain has no payers")?, local.market())?;
    let price = Amount::parse(FIRST_PRICE).expect("the price is digits");
    let payee = local.payee.address;
    println!("A test buyer pays {} USDC …", usdc(price.base_units()));
    let before = chain.token_balance(local.usdc, payee).await?;
    let asked_at = Instant::now();
    let receipt = buyer.pay(service, api_key, payee, price).await?;
    let took = asked_at.elapsed();
    if !receipt.success {
        let reason = receipt.error_reason.unwrap_or_default();
        anyhow::bail!(
            "the payment failed: {reason}: {}",
            receipt.error_message.unwrap_or_default()
        );
    }
    let hash: B256 = receipt.transaction.parse().context("read the receipt's transaction")?;
    let mined = chain.receipt(hash).await?.context("the chain does not know the transaction")?;
    let after = chain.token_balance(local.usdc, payee).await?;
    println!();
    println!("  Receipt");
    println!("  paid         {} USDC", usdc(price.base_units()));
    println!("  from         {}", buyer.address());
    println!("  to           {payee}, which held {} and holds {}", usdc(before), usdc(after));
    println!("  transaction  {hash}");
    println!("  in block     {} of {}", mined.block_number, receipt.network);
    println!(
        "  gas cost     {} ETH, paid by {}",
        format_ether(mined.fee_wei),
        local.wallet.address
    );
    println!("  settled in   {} ms", took.as_millis());
    println!();
    Ok(())
}

/// An amount of USDC for people.
fn usdc(base_units: U256) -> String {
    format_units(base_units, 6).expect("USDC has 6 decimals, fewer than the limit of 77")
}

const fn fork_note(is_fork: bool) -> &'static str {
    if is_fork { " (a fork)" } else { "" }
}
