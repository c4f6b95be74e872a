//! What it costs to know who asks and whether there is room, before a question is looked at.
//!
//! `cargo bench --bench admission` measures the rate of an address, the key, the rate of its merchant and
//! its seat, in this process and thread, on a real Postgres: with one merchant, and with 100,000 merchants
//! and a million keys; without Redis, and with one. `ADMISSION_KEYS=1000000` chooses how many keys.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    reason = "a benchmark fails by panicking, and reads the clock"
)]
#![allow(dead_code, unreachable_pub, reason = "a binary uses its part of what is shared")]

#[path = "verify/process.rs"]
mod process;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use process::Thread;
use quittance::{
    domain::{KeyMode, Rate, RateClass},
    limits::{ClassLimit, RateLimits, Rates},
    merchants::{ApiKey, Gate, GateOptions, Pepper, Principal},
};
use secrecy::SecretString;
use sqlx::PgPool;
use support::{Redis, World, now};
use tokio_util::sync::CancellationToken;

/// Keys that ask; the others are only there.
const N_ASKING: usize = 1_000;
const N_KEYS_EACH: u32 = 10;
const N_CHECKS: usize = 200_000;
const N_SHARED_CHECKS: usize = 20_000;
const N_AT_ONCE: usize = 64;
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let n_keys: u32 =
        std::env::var("ADMISSION_KEYS").map_or(1_000_000, |n| n.parse().expect("a number"));
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "one thread, {profile} build; CPU is that of the thread, the driver of Postgres included"
    );
    let world = World::automine().await;
    let pepper = Pepper::new(world.services.settings.keys.pepper().unwrap());
    let one = vec![world.keys.merchant.reveal().to_owned()];
    let redis = Redis::start().await;
    let url = SecretString::from(redis.url.as_str());

    println!("one merchant, one key");
    measure(&world.books, &pepper, &one, &url).await;
    let asking = fill(&world.books, &pepper, n_keys).await;
    println!("{} merchants, {n_keys} keys, of which one asks", n_keys / N_KEYS_EACH);
    measure(&world.books, &pepper, &one, &url).await;
    println!("the same, of which {N_ASKING} ask in turn");
    measure(&world.books, &pepper, &asking, &url).await;
    world.stop().await;
}

/// Merchants with ten keys each, and keys that somebody knows.
async fn fill(books: &PgPool, pepper: &Pepper, n_keys: u32) -> Vec<String> {
    let n_merchants = i32::try_from(n_keys / N_KEYS_EACH).unwrap();
    let started = Instant::now();
    sqlx::query(
        "insert into merchant (merchant_id, name)
         select md5('m' || n)::uuid, 'm' || n from generate_series(1, $1) as n",
    )
    .bind(n_merchants)
    .execute(books)
    .await
    .unwrap();
    sqlx::query(
        "insert into api_key (api_key_id, merchant_id, role, mode, label, key_hash, scopes)
         select gen_random_uuid(), md5('m' || n)::uuid, 'merchant', 'live', 'qk_live_0',
            sha256(convert_to(n || '/' || k, 'utf8')), '{verify,settle,read}'
         from generate_series(1, $1) as n, generate_series(1, $2) as k",
    )
    .bind(n_merchants)
    .bind(i32::try_from(N_KEYS_EACH).unwrap())
    .execute(books)
    .await
    .unwrap();
    let keys: Vec<ApiKey> = (0..N_ASKING).map(|_| ApiKey::generate(KeyMode::Live)).collect();
    let hashes: Vec<Vec<u8>> =
        keys.iter().map(|key| key.hash(pepper).as_bytes().to_vec()).collect();
    sqlx::query(
        "insert into api_key (api_key_id, merchant_id, role, mode, label, key_hash, scopes)
         select gen_random_uuid(), md5('m' || n)::uuid, 'merchant', 'live', 'qk_live_0', hash,
            '{verify,settle,read}'
         from unnest($1::bytea[]) with ordinality as known (hash, n)",
    )
    .bind(hashes)
    .execute(books)
    .await
    .unwrap();
    sqlx::query("analyze").execute(books).await.unwrap();
    println!("written in {:.1} s", started.elapsed().as_secs_f64());
    keys.iter().map(|key| key.reveal().to_owned()).collect()
}

async fn measure(books: &PgPool, pepper: &Pepper, keys: &[String], redis_url: &SecretString) {
    let gate = || {
        let options = GateOptions {
            pepper: pepper.clone(),
            failed_attempts_per_minute: 10,
            failed_attempts_burst: 10,
        };
        Gate::new(books.clone(), options)
    };
    let (first, alone) = (gate(), Rates::new(limits(), None).unwrap());
    let (cpu, started) = (Thread::current().cpu(), Instant::now());
    for key in keys {
        check(&first, &alone, key).await;
    }
    print("each key for the first time", keys.len(), started.elapsed(), cpu);

    let (cpu, started) = (Thread::current().cpu(), Instant::now());
    for n in 0..N_CHECKS {
        check(&first, &alone, &keys[n % keys.len()]).await;
    }
    print("without Redis", N_CHECKS, started.elapsed(), cpu);

    let shared = Rates::new(limits(), Some(redis_url)).unwrap();
    let stop = CancellationToken::new();
    let asked = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (cpu, started) = (Thread::current().cpu(), Instant::now());
        for n in 0..N_SHARED_CHECKS {
            check(&first, &shared, &keys[n % keys.len()]).await;
        }
        print("with Redis, one at a time", N_SHARED_CHECKS, started.elapsed(), cpu);
        let (cpu, started) = (Thread::current().cpu(), Instant::now());
        for n in 0..N_SHARED_CHECKS / N_AT_ONCE {
            join_all((0..N_AT_ONCE).map(|m| check(&first, &shared, &keys[(n + m) % keys.len()])))
                .await;
        }
        let n = N_SHARED_CHECKS / N_AT_ONCE * N_AT_ONCE;
        print("with Redis, 64 at a time", n, started.elapsed(), cpu);
        stop.cancel();
    };
    futures_util::future::join(shared.run(&stop), asked).await;
}

/// What a request passes.
async fn check(gate: &Gate, rates: &Rates, key: &str) {
    rates.admit_address(ADDRESS).unwrap();
    let Ok(Principal::Merchant(caller)) = gate.authenticate(key, ADDRESS, now()).await else {
        panic!("the key is known");
    };
    let (_, seat) = rates.admit(caller.merchant_id, &caller.rates, RateClass::Verify).await;
    drop(seat.unwrap());
}

fn limits() -> RateLimits {
    let rate = Rate::new(100_000, 60_000_000).unwrap();
    let class = ClassLimit { rate, n_at_once_max: 10_000 };
    RateLimits { verify: class, settle: class, read: class, address: rate }
}

fn print(what: &str, n: usize, took: Duration, cpu_before: Duration) {
    let each = |took: Duration| took.as_secs_f64() * 1e6 / n as f64;
    let cpu = Thread::current().cpu() - cpu_before;
    println!("  {what:<28} {:>8.2} µs each, {:>7.2} µs of CPU", each(took), each(cpu));
}
