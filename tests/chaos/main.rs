//! Three replicas over one Postgres and one chain while everything around them breaks, and a checker
//! that looks at what is left (settlement engine reference, section 4.5).
//!
//! `CHAOS_SEED` repeats a run's schedule, though not its timing; `CHAOS_SECONDS` is how long things
//! break.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod checker;
mod clients;
mod conductor;
mod dice;
mod gather;
mod ground;
mod meddler;
mod record;
mod report;
mod roster;
mod schedule;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy::primitives::{Address, U256, address};
use quittance::{app::dev::ChainRequest, engine::register_wallet};
use serde_json::json;
use tokio::time::Instant;

use clients::{Market, OUTCOME_AFTER_EXPIRY};
use conductor::Conductor;
use ground::{Ground, read_block};
use meddler::{Meddlers, Token};
use record::Run;
use schedule::{DEPTH_MAX, schedule};
use support::{Node, World};

/// How long things break, if nobody says.
const SECONDS: u64 = 45;
/// How many payments are started per second.
const PAYMENTS_PER_SECOND: u64 = 10;
/// Wallets besides the local chain's own: those of `tests/chaos/wallets`.
const WALLETS: [Address; 2] = [
    address!("b2458278224d83accf74418e3efad315774ebd6c"),
    address!("0bdb9f878ae2ae7d647dc80d1f6b6dfe5273ca26"),
];
const WALLET_WEI: u128 = 10_000_000_000_000_000_000;
/// How long everything may take to be final once it is paid.
const FINALITY: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_every_payment_is_settled_exactly_once() {
    let seed = setting("CHAOS_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let length = Duration::from_secs(setting("CHAOS_SECONDS").unwrap_or(SECONDS));
    let logs = std::env::temp_dir().join(format!("quittance-chaos-{seed}-{}", std::process::id()));
    std::fs::create_dir_all(&logs).unwrap();
    eprintln!(
        "chaos: CHAOS_SEED={seed} CHAOS_SECONDS={} logs: {}",
        length.as_secs(),
        logs.display()
    );

    let (run, counts) = run(seed, length, &logs).await;
    let violations = checker::violations(&run);
    eprintln!("{counts}");
    if violations.is_empty() {
        std::fs::remove_dir_all(&logs).unwrap();
        return;
    }
    let complaint = report::complaint(&run, &violations);
    for (file, text) in [
        ("violations.txt", complaint.clone()),
        ("counts.txt", counts),
        ("schedule.txt", format!("{:#?}", schedule(seed, length))),
        ("run.txt", format!("{run:#?}")),
    ] {
        std::fs::write(logs.join(file), text).unwrap();
    }
    let logs = logs.display();
    panic!("seed {seed}: {} violations; logs are in {logs}\n{complaint}", violations.len());
}

/// Breaks things for `length`, lets them come to rest, and returns what is left, and a summary.
async fn run(seed: u64, length: Duration, logs: &Path) -> (Run, String) {
    let (world, wallets, ground, meddlers) = prepare(length).await;
    let node = world.node.clone();
    // A reorganization early in the run moves transactions into blocks from before it.
    let first = node.block_number().await + 1 - DEPTH_MAX;
    let (chain, api_key) = (&world.services.chain, world.keys.merchant.reveal().to_owned());
    let (asset, payee) = (chain.usdc, chain.payee.address);
    let buyers = (0..chain.payers.len()).map(|n| (chain.payers[n].clone(), world.buyer(n)));
    let buyers: Vec<_> = buyers.collect();
    let payee_before = world.payee_balance().await;
    let balances_before = balances(&node, &wallets).await;

    let conductor = Conductor::begin(world, Arc::clone(&ground), wallets.clone(), logs).await;
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let market = Arc::new(Market {
        roster: conductor.roster(),
        ground: Arc::clone(&ground),
        meddlers,
        buyers,
        payee,
        api_key,
        http,
        history: Mutex::default(),
    });
    let miner = tokio::spawn({
        let ground = Arc::clone(&ground);
        async move { ground.mine_forever().await }
    });
    let (acts, began) = (schedule(seed, length), Instant::now());
    let (n_payments, ()) = tokio::join!(
        market.trade(seed, PAYMENTS_PER_SECOND, length),
        conductor.conduct(&acts, length)
    );
    // Everything was signed until then, and for less than this.
    let is_settled =
        conductor.settle(began + length + clients::VALID_FOR_MAX + OUTCOME_AFTER_EXPIRY).await;
    miner.abort();
    let _ = miner.await;
    ground.mine(3 * DEPTH_MAX).await;
    let is_final = conductor.finalize(Instant::now() + FINALITY).await;
    if !(is_settled && is_final) {
        eprintln!("the run did not come to rest: settled {is_settled}, final {is_final}");
    }
    conductor.stop_replicas().await;

    let mut blocks = Vec::new();
    for number in first..=node.block_number().await {
        blocks.push(read_block(&node, number).await);
    }
    let balances_after = balances(&node, &wallets).await;
    let of_wallet =
        |address: &Address| (*address, (balances_before[address], balances_after[address]));
    let history = market.history.lock().unwrap().clone();
    let run = Run {
        history,
        blocks,
        orphaned: ground.orphaned(),
        books: conductor.books().await,
        sent: gather::sent(&conductor.proxies),
        asset,
        balances_wei: wallets.iter().map(of_wallet).collect(),
        payee,
        payee_gain: U256::from(node.token_balance(asset, payee).await - payee_before),
    };
    let counts = report::counts(&run, &conductor.done(), n_payments);
    conductor.end().await;
    (run, counts)
}

/// The surroundings: a chain whose safe head no reorganization reaches, wallets, strangers with gas.
async fn prepare(length: Duration) -> (World, Vec<Address>, Arc<Ground>, Meddlers) {
    let request = ChainRequest {
        no_mining: true,
        slots_in_an_epoch: Some(DEPTH_MAX),
        ..ChainRequest::default()
    };
    let world = World::start(request).await;
    let chain = &world.services.chain;
    let ground = Arc::new(Ground::new(world.node.clone()));
    let token = Token {
        address: chain.usdc,
        name: chain.usdc_name.clone(),
        version: chain.usdc_version.clone(),
        chain_id: chain.chain_id,
    };
    // One payment in fourteen is meddled with.
    let n_payments = (length.as_secs() + 1) * PAYMENTS_PER_SECOND;
    let n_meddlers = usize::try_from(20 + n_payments / 8).unwrap();
    let meddlers = Meddlers::fund(&ground, n_meddlers, token).await;

    let mut wallets = vec![chain.wallet.address];
    let client = world.services.client().unwrap();
    for address in WALLETS {
        world.node.set_balance(address, WALLET_WEI).await;
        register_wallet(&client, &world.books, address).await.unwrap();
        wallets.push(address);
    }
    // What was set stands below what is ever replaced.
    ground.mine(2 * DEPTH_MAX).await;
    (world, wallets, ground, meddlers)
}

async fn balances(node: &Node, accounts: &[Address]) -> BTreeMap<Address, U256> {
    let mut balances = BTreeMap::new();
    for account in accounts {
        let wei = node.call("eth_getBalance", json!([account, "latest"])).await;
        balances.insert(*account, wei.as_str().unwrap().parse().unwrap());
    }
    balances
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}
