//! The figures that a newcomer asks for: how long a payment takes, and what the service weighs.
//!
//! `cargo bench --bench first_figures` runs the real binary on a local chain, one caller, and prints
//! figures with their conditions. Everything shares this machine, so they are upper bounds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use quittance::app::dev::ChainRequest;
use support::{Service, World};

const N_SETTLEMENTS: usize = 24;
const N_VERIFICATIONS: usize = 200;

#[tokio::main]
async fn main() {
    let n_cores = std::thread::available_parallelism().unwrap();
    println!("one caller, {n_cores} cores shared with anvil and Postgres, {} build", profile());
    for block_time in [1, 2] {
        let request = ChainRequest { block_time: Some(block_time), ..ChainRequest::default() };
        let world = World::start(request).await;
        let service = world.service().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!("blocks every {block_time} s");
        println!("  resident memory at rest   {}", resident(&service));
        settlements(&world, &service, block_time).await;
        verifications(&world, &service).await;
        println!("  resident memory after     {}", resident(&service));
        service.stop().await;
        world.stop().await;
    }
}

async fn settlements(world: &World, service: &Service, block_time: u64) {
    let mut waits = Vec::new();
    for n in 0..N_SETTLEMENTS {
        // Payments arrive anywhere within a block's time, not just after a block.
        let phase = u64::try_from(n).unwrap() * 617 % (block_time * 1_000);
        tokio::time::sleep(Duration::from_millis(phase)).await;
        let payment = world.payment(n % 8, 1_000);
        let asked = Instant::now();
        let answer = service.settle(&payment).await;
        assert_eq!(answer["success"], true, "{answer}");
        waits.push(asked.elapsed());
    }
    print("POST /settle to answer", &mut waits);
}

async fn verifications(world: &World, service: &Service) {
    let mut waits = Vec::new();
    for n in 0..N_VERIFICATIONS {
        let payment = world.payment(n % 8, 1_000);
        let asked = Instant::now();
        assert_eq!(service.verify(&payment).await["isValid"], true);
        waits.push(asked.elapsed());
    }
    print("POST /verify to answer", &mut waits);
}

fn print(what: &str, waits: &mut [Duration]) {
    waits.sort();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_millis();
    println!(
        "  {what}    p50 {} ms, p95 {} ms, largest {} ms, of {}",
        at(50),
        at(95),
        at(100),
        waits.len()
    );
}

fn resident(service: &Service) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.trim_start_matches("VmRSS:").trim().to_owned()
}

const fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}
