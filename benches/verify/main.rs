//! What a verification costs, how many there are in a second, and how long each takes.
//!
//! `cargo bench --bench verify` runs the real binary on a local chain with two-second blocks, or on a
//! stub before that chain which answers the lens by itself. Callers send requests that were signed and
//! written out before. Everything shares this machine. `VERIFY_CALLERS=1,64`, `VERIFY_SECONDS=10` and
//! `VERIFY_ENDPOINTS=none,anvil,stub0,stub30,twice` choose what is run:
//!
//! - `none`: payments that are refused before the books or a chain is asked, for their amount: what
//!   HTTP, parsing and the signature cost.
//! - `anvil`, `stub0`, `stub30`: valid payments; the stub takes so many milliseconds for each answer.
//! - `twice`: a stub that answers one call of the lens at a time, in 30 ms, is first asked by 256
//!   callers, and then twice as often as it could answer.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    reason = "a benchmark fails by panicking, and reads the clock"
)]
#![allow(unreachable_pub, reason = "a binary has no crate to be private in")]

mod generator;
mod http;
mod payments;
mod process;
mod stub;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use generator::{Callers, Phase, Tally};
use payments::{Asked, Payers, Requests};
use process::Thread;
use quittance::{
    app::dev::ChainRequest,
    domain::{ChainId, TokenDomain},
    verify::{EcdsaSignature, authorization_digest},
};
use stub::{Manner, Stub};
use support::{RPC_URL, Service, WITHOUT_LIMITS, World};

const BLOCK_SECONDS: u64 = 2;
/// How long callers ask before anything counts: connections are made, caches are filled.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a service is left alone, to learn what it does by itself.
const REST: Duration = Duration::from_secs(2);
/// The callers that find out how much a limited endpoint can do.
const N_CALLERS_AT_CAPACITY: usize = 256;
/// More connections than the service lets wait.
const N_CONNECTIONS_OPEN_LOOP: usize = 6_000;
/// How many signatures are checked to learn what one takes.
const N_SIGNATURES: u32 = 5_000;

#[tokio::main]
async fn main() {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let callers = setting("VERIFY_CALLERS", "1,16,64,256,1000");
    let callers: Vec<usize> = callers.split(',').map(|n| n.trim().parse().unwrap()).collect();
    let endpoints = setting("VERIFY_ENDPOINTS", "none,anvil,stub0,stub30,twice");
    let seconds = Duration::from_secs(setting("VERIFY_SECONDS", "10").parse().unwrap());
    let n_cores = std::thread::available_parallelism().unwrap();
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "blocks every {BLOCK_SECONDS} s, {} s a run, {n_cores} cores shared with anvil, Postgres and \
         the callers, {profile} build",
        seconds.as_secs()
    );
    println!("one signature check          {:.1} µs", signature_micros());
    let request = ChainRequest { block_time: Some(BLOCK_SECONDS), ..ChainRequest::default() };
    let bench = Bench::prepare(World::start(request).await, seconds).await;
    for endpoint in endpoints.split(',').map(str::trim) {
        match endpoint {
            "none" => bench.each(&callers, Asked::OtherAmount, None, "nothing of a chain").await,
            "anvil" => bench.each(&callers, Asked::Signed, None, "anvil").await,
            "stub0" => bench.each(&callers, Asked::Signed, Some(stub_of(0)), "stub, 0 ms").await,
            "stub30" => bench.each(&callers, Asked::Signed, Some(stub_of(30)), "stub, 30 ms").await,
            "twice" => bench.twice_the_capacity().await,
            other => panic!("VERIFY_ENDPOINTS: what is {other}?"),
        }
    }
    bench.world.stop().await;
}

fn stub_of(delay_ms: u64) -> Manner {
    // As many as a connection pool would ever ask.
    Manner { delay: Duration::from_millis(delay_ms), n_lens_calls_max: 1_000 }
}

/// What recovering one signer takes in processor time, digest included.
fn signature_micros() -> f64 {
    use alloy::signers::{SignerSync as _, local::PrivateKeySigner};
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap();
    let authorization = quittance::domain::Authorization {
        payer: signer.address(),
        payee: signer.address(),
        amount: quittance::domain::Amount::parse("1000").unwrap(),
        valid_after: alloy::primitives::U256::ZERO,
        valid_before: alloy::primitives::U256::MAX,
        nonce: quittance::domain::AuthorizationNonce::from_bytes(B256::repeat_byte(9)),
    };
    let chain_id: ChainId = "eip155:8453".parse().unwrap();
    let domain = TokenDomain { name: "USD Coin".to_owned(), version: "2".to_owned() };
    let digest = authorization_digest(chain_id, signer.address(), &domain, &authorization);
    let signature = signer.sign_hash_sync(&digest).unwrap().as_bytes();
    let signature = EcdsaSignature::parse(&signature).unwrap();
    let started = Thread::current().cpu();
    for _ in 0..N_SIGNATURES {
        let digest = authorization_digest(chain_id, signer.address(), &domain, &authorization);
        assert_eq!(std::hint::black_box(signature).signer(digest), Some(signer.address()));
    }
    (Thread::current().cpu() - started).as_secs_f64() * 1e6 / f64::from(N_SIGNATURES)
}

struct Bench {
    world: World,
    seconds: Duration,
    payers: Payers,
    valid: OnceLock<Arc<Requests>>,
    refused: OnceLock<Arc<Requests>>,
}

/// What was measured, apart from what callers saw.
struct Run {
    tally: Tally,
    took: Duration,
    /// Processor time of the service, of the stub, and of the whole machine.
    cpu: [Duration; 3],
    /// And of the generator, by the share of its life that was measured.
    cpu_of_generator: Duration,
    calls: BTreeMap<String, u64>,
    looks: (u64, u64),
    memory: (u64, u64),
}

impl Bench {
    async fn prepare(world: World, seconds: Duration) -> Self {
        let payers = Payers::fund(&world).await;
        Self { world, seconds, payers, valid: OnceLock::new(), refused: OnceLock::new() }
    }

    /// Signed when they are first needed.
    fn requests(&self, asked: Asked) -> &Arc<Requests> {
        let signed = match asked {
            Asked::Signed => &self.valid,
            Asked::OtherAmount => &self.refused,
        };
        signed.get_or_init(|| {
            let started = Instant::now();
            let requests = self.payers.sign(&self.world, asked);
            let took = started.elapsed().as_secs_f64();
            println!("{} payments signed in {took:.1} s", requests.len());
            Arc::new(requests)
        })
    }

    /// One run for each number of callers, each with a service of its own.
    async fn each(&self, callers: &[usize], asked: Asked, manner: Option<Manner>, what: &str) {
        let requests = self.requests(asked);
        for n in callers {
            let (service, stub) = self.service(manner).await;
            println!("{n} callers, {what}");
            let run = self.run(&service, stub.as_ref(), requests, Callers::Closed { n: *n }).await;
            print(&run);
            let expected = match asked {
                Asked::Signed => "valid",
                Asked::OtherAmount => "200 invalid_exact_evm_payload_authorization_value_mismatch",
            };
            let others: Vec<_> = run.tally.waits.keys().filter(|said| *said != expected).collect();
            assert!(others.is_empty(), "{others:?}\n{}", last_lines(&service.log()));
            service.stop().await;
        }
    }

    async fn twice_the_capacity(&self) {
        let manner = Manner { delay: Duration::from_millis(30), n_lens_calls_max: 1 };
        let (service, stub) = self.service(Some(manner)).await;
        println!("{N_CALLERS_AT_CAPACITY} callers, stub, 30 ms and one call of the lens at a time");
        let callers = Callers::Closed { n: N_CALLERS_AT_CAPACITY };
        let run = self.run(&service, stub.as_ref(), self.requests(Asked::Signed), callers).await;
        print(&run);
        let capacity = run.n() / run.took.as_secs_f64();
        println!("the same, asked {:.0} times a second whatever is answered", 2.0 * capacity);
        let callers =
            Callers::Open { a_second: 2.0 * capacity, n_connections: N_CONNECTIONS_OPEN_LOOP };
        let run = self.run(&service, stub.as_ref(), self.requests(Asked::Signed), callers).await;
        print(&run);
        println!("  found no free connection   {}", run.tally.n_late);
        service.stop().await;
    }

    async fn service(&self, manner: Option<Manner>) -> (Service, Option<Stub>) {
        let chain = &self.world.services.chain;
        let stub =
            manner.map(|manner| Stub::start(&chain.rpc_url, chain.chain_id.eip155(), manner));
        let endpoint = stub.as_ref().map(|stub| (RPC_URL, stub.url.as_str()));
        let settings: Vec<_> = endpoint.into_iter().chain(WITHOUT_LIMITS).collect();
        let service = self.world.service_with(&settings).await;
        (service, stub)
    }

    async fn run(
        &self,
        service: &Service,
        stub: Option<&Stub>,
        requests: &Arc<Requests>,
        callers: Callers,
    ) -> Run {
        let cpu = || {
            let stub = stub.map(|stub| stub.thread.cpu()).unwrap_or_default();
            [process::cpu_of(service.pid()), stub, process::cpu_of_machine()]
        };
        let looks = || stub.map(Stub::answered).unwrap_or_default();
        let resting = cpu()[0];
        tokio::time::sleep(REST).await;
        let at_rest = (cpu()[0] - resting).as_secs_f64() / REST.as_secs_f64();
        println!("  service CPU at rest        {:.1} ms a second", at_rest * 1e3);

        let phase = Arc::new(Phase::default());
        let address = service.url.trim_start_matches("http://").parse().unwrap();
        let (born, generator) = (
            Instant::now(),
            generator::run(address, Arc::clone(requests), callers, Arc::clone(&phase)),
        );
        tokio::time::sleep(WARM_UP).await;
        let calls = process::rpc_calls(service).await;
        let (looks_before, cpu_before, started) = (looks(), cpu(), Instant::now());
        phase.measure();
        tokio::time::sleep(self.seconds).await;
        phase.end();
        let (took, cpu_after, looks_after) = (started.elapsed(), cpu(), looks());
        let memory = process::memory_of(service.pid());
        let mut calls_after = process::rpc_calls(service).await;
        for (method, n) in &mut calls_after {
            *n -= calls.get(method).copied().unwrap_or_default();
        }
        let tally = tokio::task::spawn_blocking(|| generator.join().unwrap()).await.unwrap();
        Run {
            took,
            cpu: std::array::from_fn(|n| cpu_after[n].saturating_sub(cpu_before[n])),
            cpu_of_generator: tally.cpu.mul_f64(took.as_secs_f64() / born.elapsed().as_secs_f64()),
            calls: calls_after,
            looks: (looks_after.0 - looks_before.0, looks_after.1 - looks_before.1),
            memory,
            tally,
        }
    }
}

impl Run {
    fn n(&self) -> f64 {
        self.tally.waits.values().map(Vec::len).sum::<usize>() as f64
    }
}

fn print(run: &Run) {
    let (n, seconds) = (run.n(), run.took.as_secs_f64());
    let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / n;
    let [service, stub, machine] = run.cpu;
    let others = machine.saturating_sub(service + stub + run.cpu_of_generator);
    println!("  answered                   {:.0} a second ({n} in {seconds:.1} s)", n / seconds);
    for (said, waits) in &run.tally.waits {
        let mut waits = waits.clone();
        waits.sort();
        let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!(
            "  {said:<26} {:.1} %, p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, largest {:.2} ms",
            waits.len() as f64 * 100.0 / n,
            at(50),
            at(95),
            at(99),
            at(100)
        );
    }
    if run.tally.n_lost > 0 {
        println!("  connections lost           {}", run.tally.n_lost);
    }
    println!("  service CPU                {:.1} µs each", micros(service));
    println!(
        "  other CPU                  generator {:.1} µs, stub {:.1} µs, rest of the machine {:.1} µs \
         each; {:.0} % of the cores busy",
        micros(run.cpu_of_generator),
        micros(stub),
        micros(others),
        machine.as_secs_f64() * 100.0
            / seconds
            / std::thread::available_parallelism().unwrap().get() as f64
    );
    let n_calls: u64 = run.calls.values().sum();
    let methods: Vec<String> = run
        .calls
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(method, n)| format!("{method} {n}"))
        .collect();
    println!(
        "  RPC calls                  {:.4} each ({})",
        n_calls as f64 / n,
        methods.join(", ")
    );
    if run.looks.0 > 0 {
        println!(
            "  calls of the lens          {}, {:.1} payments each",
            run.looks.0,
            run.looks.1 as f64 / run.looks.0 as f64
        );
    }
    println!("  resident memory            {} MiB, at most {} MiB", run.memory.0, run.memory.1);
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
