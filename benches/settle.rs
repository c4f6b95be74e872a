//! How many payments one wallet settles, and how long each takes.
//!
//! `cargo bench --bench settle` runs the real binary on a local chain with two-second blocks of 400
//! million gas. Callers ask again as soon as they are answered. Everything shares this machine.
//! `SETTLE_CALLERS=64,256` and `SETTLE_SECONDS=20` choose what is run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::arithmetic_side_effects,
    reason = "a benchmark fails by panicking, and reads the clock"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use quittance::{
    app::dev::{Buyer, ChainRequest},
    domain::{Amount, UnixTime},
};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use support::{Service, WITHOUT_LIMITS, World};

const BLOCK_SECONDS: u64 = 2;
const BLOCK_GAS: f64 = 400e6;
/// How often the head is looked at, to learn when a block was built.
const HEAD_INTERVAL: Duration = Duration::from_millis(5);

/// What the callers of one run counted.
#[derive(Default)]
struct Tally {
    waits: Mutex<Vec<Duration>>,
    n_refused: AtomicU64,
}

#[tokio::main]
async fn main() {
    let n_cores = std::thread::available_parallelism().unwrap();
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let callers = std::env::var("SETTLE_CALLERS").unwrap_or_else(|_| "1,16,64,256,2000".to_owned());
    let seconds: u64 =
        std::env::var("SETTLE_SECONDS").map_or(30, |seconds| seconds.parse().unwrap());
    println!(
        "one wallet, blocks every {BLOCK_SECONDS} s of 400M gas, {seconds} s a run, {n_cores} cores shared \
         with anvil, Postgres and the callers, {profile} build"
    );
    for n_callers in callers.split(',').map(|n| n.trim().parse::<usize>().unwrap()) {
        let request = ChainRequest { block_time: Some(BLOCK_SECONDS), ..ChainRequest::default() };
        let world = World::start(request).await;
        let service = world.service_with(&WITHOUT_LIMITS).await;
        // The first batch deploys the settler; that is no part of the figures.
        burst(&world, &service, 4).await;
        burst(&world, &service, 4).await;
        run(&world, &service, n_callers, Duration::from_secs(seconds)).await;
        world.check_books().await;
        service.stop().await;
        world.stop().await;
    }
}

async fn burst(world: &World, service: &Service, n: usize) {
    let payments: Vec<Value> = (0..n).map(|n| world.payment(n, 1)).collect();
    let answers = payments.iter().map(|payment| service.settle(payment));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer["success"], true, "{answer}");
    }
}

async fn run(world: &World, service: &Service, n_callers: usize, length: Duration) {
    let commits = commits(world).await;
    let (cpu, first) = (cpu_seconds(service), last_id(world).await);
    let blocks = Arc::new(Mutex::new(BTreeMap::new()));
    let watcher =
        tokio::spawn(watch_heads(world.services.chain.rpc_url.clone(), Arc::clone(&blocks)));
    let tally = Arc::new(Tally::default());
    let http = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    let (started, end) = (Instant::now(), Instant::now() + length);
    let callers: Vec<_> = (0..n_callers)
        .map(|n| {
            let buyer = world.buyer(n % world.services.chain.payers.len());
            let caller = Caller {
                buyer,
                payee: world.services.chain.payee.address,
                http: http.clone(),
                url: format!("{}/settle", service.url),
                key: service.api_key.clone(),
                tally: Arc::clone(&tally),
            };
            tokio::spawn(caller.pay_until(end))
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let took = started.elapsed();
    watcher.abort();
    let commits = self::commits(world).await - commits;
    let cpu = cpu_seconds(service) - cpu;
    let blocks = std::mem::take(&mut *blocks.lock().unwrap());
    print(world, service, n_callers, &tally, &Run { took, commits, cpu, first, blocks }).await;
}

struct Run {
    took: Duration,
    commits: i64,
    cpu: f64,
    first: String,
    blocks: BTreeMap<u64, f64>,
}

struct Caller {
    buyer: Buyer,
    payee: alloy::primitives::Address,
    http: Client,
    url: String,
    key: String,
    tally: Arc<Tally>,
}

impl Caller {
    async fn pay_until(self, end: Instant) {
        let amount = Amount::parse("1").unwrap();
        while Instant::now() < end {
            let authorization = self.buyer.authorization(self.payee, amount, now());
            let payment = self.buyer.request(&authorization).unwrap().to_string();
            let asked = Instant::now();
            while !self.is_paid(&payment).await {}
            self.tally.waits.lock().unwrap().push(asked.elapsed());
        }
    }

    /// Asks once. What was not answered with success is asked again, as the SDKs do.
    async fn is_paid(&self, payment: &str) -> bool {
        let request = self
            .http
            .post(&self.url)
            .header("Content-Type", "application/json")
            .bearer_auth(&self.key)
            .body(payment.to_owned());
        let response = request.send().await.unwrap();
        let status = response.status();
        let body = response.text().await.unwrap();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            self.tally.n_refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(BLOCK_SECONDS)).await;
            return false;
        }
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert!(
            answer["success"] == true || answer["errorReason"] == "settlement_pending",
            "{body}"
        );
        answer["success"] == true
    }
}

async fn watch_heads(rpc_url: String, blocks: Arc<Mutex<BTreeMap<u64, f64>>>) {
    let http = Client::new();
    let question = r#"{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}"#;
    loop {
        let asked = http.post(&rpc_url).header("Content-Type", "application/json").body(question);
        let answer: Value =
            serde_json::from_str(&asked.send().await.unwrap().text().await.unwrap()).unwrap();
        let number = u64::from_str_radix(&answer["result"].as_str().unwrap()[2..], 16).unwrap();
        blocks.lock().unwrap().entry(number).or_insert_with(wall_clock);
        tokio::time::sleep(HEAD_INTERVAL).await;
    }
}

async fn print(world: &World, service: &Service, n_callers: usize, tally: &Tally, run: &Run) {
    let mut waits = std::mem::take(&mut *tally.waits.lock().unwrap());
    waits.sort();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_millis();
    let n = waits.len() as f64;
    let rows: Vec<(f64, i64)> = sqlx::query_as(
        "select extract(epoch from created_at)::float8, block_number from settlement
         where settlement_id > $1::uuid",
    )
    .bind(&run.first)
    .fetch_all(&world.books)
    .await
    .unwrap();
    let answered: Vec<(f64, i64)> = sqlx::query_as(
        "select extract(epoch from answered_at)::float8, block_number from settlement
         where settlement_id > $1::uuid and answered_at is not null",
    )
    .bind(&run.first)
    .fetch_all(&world.books)
    .await
    .unwrap();
    let (n_transactions, gas, n_items, fullest): (i64, f64, i64, f64) = sqlx::query_as(
        "with mined as (
            select gas_used, block_number, (select count(*) from transaction_item item
                where item.transaction_id = transaction.transaction_id) as n_items
            from transaction where status in ('mined', 'finalized') and exists (
                select from transaction_item item where item.transaction_id = transaction.transaction_id
                    and item.settlement_id > $1::uuid))
         select count(*), sum(gas_used)::float8, sum(n_items)::int8,
            (select max(used)::float8 from (
                select sum(gas_used) as used from mined group by block_number) as block)
         from mined",
    )
    .bind(&run.first)
    .fetch_one(&world.books)
    .await
    .unwrap();
    println!("{n_callers} callers");
    println!(
        "  settled                    {:.0} a second ({n} in {:.1} s, {} refused with 503)",
        n / run.took.as_secs_f64(),
        run.took.as_secs_f64(),
        tally.n_refused.load(Ordering::Relaxed)
    );
    println!(
        "  to the answer              p50 {} ms, p99 {} ms, largest {} ms",
        at(50),
        at(99),
        at(100)
    );
    println!("  payments a transaction     {:.1}", n_items as f64 / n_transactions as f64);
    println!("  gas a payment              {:.0}", gas / n_items as f64);
    println!("  commits a payment          {:.1}", run.commits as f64 / n);
    println!("  service CPU a payment      {:.2} ms", run.cpu * 1_000.0 / n);
    println!("  fullest block              {:.1} % of its gas", fullest / BLOCK_GAS * 100.0);
    let mut after: Vec<f64> = answered
        .iter()
        .filter_map(|(answered_at, number)| {
            let built_at = run.blocks.get(&u64::try_from(*number).unwrap())?;
            Some((answered_at - built_at) * 1_000.0)
        })
        .collect();
    after.sort_by(f64::total_cmp);
    let at = |percent: usize| after[(after.len() - 1) * percent / 100];
    println!("  from block to answer       p50 {:.0} ms, p99 {:.0} ms", at(50), at(99));
    for margin in [0.0, 0.05, 0.1, 0.2] {
        let missed = rows.iter().filter(|(claimed_at, number)| {
            let first = run.blocks.iter().find(|(_, built_at)| **built_at > claimed_at + margin);
            first.is_some_and(|(first, _)| u64::try_from(*number).unwrap() > *first)
        });
        println!(
            "  claimed {:>3.0} ms before a block was seen, and not in it: {} of {}",
            margin * 1_000.0,
            missed.count(),
            rows.len()
        );
    }
    println!("  resident memory            {}", resident(service));
}

async fn commits(world: &World) -> i64 {
    // The statistics of a backend are reported when it has been idle for a moment.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.count("select xact_commit::int8 from pg_stat_database where datname = 'quittance'").await
}

async fn last_id(world: &World) -> String {
    sqlx::query_scalar("select max(settlement_id::text) from settlement")
        .fetch_one(&world.books)
        .await
        .unwrap()
}

fn cpu_seconds(service: &Service) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // Linux counts in hundredths of a second on every machine this runs on.
    ticks / 100.0
}

fn resident(service: &Service) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.trim_start_matches("VmRSS:").trim().to_owned()
}

fn wall_clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn now() -> UnixTime {
    UnixTime::from_seconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}
