//! Redis is away, forgets, or has another past than it had. What is promised is told all the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256, U256};
use quittance::{
    app::doctor,
    chain::Block,
    domain::{AuthorizationNonce, SettlementStatus, UnixTime},
    facilitator::{Announced, Promises},
    ledger::{PromiseKey, Promised},
    promises::Marks,
    telemetry,
};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    settle_in_background,
    support::{Door, REDIS_URL, Redis, World, now},
};

const TRUSTED: &str = "select count(*) from promise_filter where state = 'trusted'";
const STALE: &str = "select count(*) from promise_filter where state = 'stale'";
const BUILDING: &str = "select count(*) from promise_filter where state = 'building'";
/// What every claim of this file promises.
const AMOUNT: u64 = 1_000;

/// The part of a service that this file is about, in this process.
struct Replica {
    promises: Arc<Promises>,
    books: PgPool,
    world_chain: quittance::domain::ChainId,
    stop: CancellationToken,
    run: JoinHandle<()>,
}

impl Replica {
    async fn start(world: &World, redis_url: Option<&str>) -> Self {
        let books = PgPool::connect(&world.services.postgres.url("quittance")).await.unwrap();
        let marks = redis_url.map(|url| Marks::new(&url.into()).unwrap());
        let promises = Arc::new(Promises::new(books.clone(), marks));
        let (stop, chain_id) = (CancellationToken::new(), world.services.chain.chain_id);
        let run = tokio::spawn({
            let (promises, stop) = (Arc::clone(&promises), stop.clone());
            async move { promises.run(&[chain_id], &stop).await }
        });
        Self { promises, books, world_chain: chain_id, stop, run }
    }

    /// Claims one authorization of the payer, as `/settle` does.
    async fn claim(&self, payer: u64, nonce: u64) {
        let mut db = self.books.begin().await.unwrap();
        self.write(&mut db, payer, nonce, now().seconds() + 300).await;
        db.commit().await.unwrap();
    }

    /// All of a claim but its commit.
    async fn write(&self, db: &mut PgConnection, payer: u64, nonce: u64, valid_before: u64) {
        let key = key(payer, nonce);
        sqlx::query(
            "insert into settlement (settlement_id, merchant_id, api_key_id, x402_version, scheme,
                chain_id, asset, payer, payee, amount, valid_after, valid_before,
                authorization_nonce, signature, token_name, token_version, digest, verified_block)
             select gen_random_uuid(), merchant_id, api_key_id, 2, 'exact', $1, $2, $3, $2,
                $4::numeric, 0, $5::numeric, $6, decode(repeat('00', 65), 'hex'), '', '', $6, 0
             from api_key where merchant_id is not null",
        )
        .bind(self.world_chain.to_string())
        .bind(key.asset.to_vec())
        .bind(key.payer.to_vec())
        .bind(AMOUNT.to_string())
        .bind(valid_before.to_string())
        .bind(key.nonce.as_bytes().to_vec())
        .execute(&mut *db)
        .await
        .unwrap();
        let announced = Announced {
            asset: key.asset,
            payer: key.payer,
            valid_before: U256::from(valid_before),
        };
        self.promises.announce(db, self.world_chain, &[announced]).await.unwrap();
    }

    async fn told(&self, keys: &[PromiseKey]) -> Vec<Promised> {
        self.told_by(&block(), keys).await
    }

    async fn told_by(&self, block: &Block, keys: &[PromiseKey]) -> Vec<Promised> {
        let told =
            self.promises.of(self.world_chain, block.number, block.timestamp, keys).await.unwrap();
        assert_eq!(told.promised.len(), keys.len());
        told.promised
    }

    /// Asks about a payer who made `n` claims, the last of them with the nonce `n`, and about one who
    /// made none. Returns who answered.
    async fn check(&self, payer: u64, n: u64) -> &'static str {
        let (by_redis, started) = (answered_by_redis(), Instant::now());
        let told = self.told(&[key(payer, n), key(payer, 0), key(1_000_000, 0)]).await;
        let took = started.elapsed();
        let sum = |n: u64| quittance::domain::Amount::from_base_units(U256::from(n * AMOUNT));
        let own = (n > 0).then_some(SettlementStatus::Claimed);
        assert_eq!((told[0].claimed, told[0].unmined), (own, sum(n.saturating_sub(1))));
        assert_eq!((told[1].claimed, told[1].unmined), (None, sum(n)));
        assert_eq!(told[2], Promised::NOTHING);
        assert!(took < Duration::from_secs(2), "a list took {took:?}");
        if answered_by_redis() > by_redis { "redis" } else { "postgres" }
    }

    async fn until_answered_by(&self, whom: &str, payer: u64, n: u64) {
        for _ in 0..1_000 {
            if self.check(payer, n).await == whom {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{whom} does not answer after 20 seconds");
    }

    async fn end(self) {
        self.stop.cancel();
        self.run.await.unwrap();
        self.promises.let_go();
        self.books.close().await;
    }
}

fn block() -> Block {
    Block {
        number: 1_000,
        hash: B256::ZERO,
        parent_hash: B256::ZERO,
        timestamp: now(),
        base_fee_wei: None,
        transaction_hashes: Vec::new(),
    }
}

fn key(payer: u64, nonce: u64) -> PromiseKey {
    PromiseKey {
        asset: Address::repeat_byte(0xaa),
        payer: Address::from_word(B256::from(U256::from(payer))),
        nonce: AuthorizationNonce::from_bytes(B256::from(U256::from((payer << 32) + nonce))),
    }
}

/// How many lists were answered with the help of Redis. A test has its process to itself.
fn answered_by_redis() -> u64 {
    let text = telemetry::metrics().render();
    let line = text.lines().find_map(|l| l.strip_prefix("quittance_promises_total{by=\"redis\"} "));
    line.map_or(0, |count| count.parse().unwrap())
}

async fn end(world: World, replicas: impl IntoIterator<Item = Replica>) {
    for replica in replicas {
        replica.end().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_and_without_redis_a_claim_is_known_to_all_replicas_at_once() {
    let world = World::stepped().await;
    let redis = Redis::start().await;
    // The third does not know that the others have Redis.
    let urls = [Some(&*redis.url), Some(&*redis.url), None];
    for (round, urls) in (0..).zip([[None; 3], urls]) {
        let mut replicas = Vec::new();
        for url in urls {
            replicas.push(Replica::start(&world, url).await);
        }
        let expected = if urls[0].is_some() { "redis" } else { "postgres" };
        replicas[0].until_answered_by(expected, round, 0).await;
        replicas[1].until_answered_by(expected, round, 0).await;
        for n in 1..=10 {
            let by = usize::try_from(n).unwrap() % 2;
            replicas[by].claim(round, n).await;
            assert_eq!(replicas[1 - by].check(round, n).await, expected);
        }
        replicas[2].claim(round, 11).await;
        for replica in &replicas {
            assert_eq!(replica.check(round, 11).await, "postgres");
        }
        if expected == "redis" {
            replicas[0].until_answered_by("redis", round, 11).await;
        }
        for replica in replicas {
            replica.end().await;
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_loses_is_asked_of_postgres_until_redis_has_it_again() {
    let world = World::stepped().await;
    let mut redis = Redis::start().await;
    let (a, b) = (
        Replica::start(&world, Some(&redis.url)).await,
        Replica::start(&world, Some(&redis.url)).await,
    );
    let losses = ["wiped", "killed", "paused", "evicting", "restored"];
    // Each with a payer of its own, whose only mark is lost.
    for (payer, loss) in (1..).zip(losses) {
        b.until_answered_by("redis", payer, 0).await;
        a.until_answered_by("redis", payer, 0).await;
        if loss == "restored" {
            let () = redis.command(&["save"]).await;
        }
        a.claim(payer, 1).await;
        assert_eq!(b.check(payer, 1).await, "redis", "before it was {loss}");
        match loss {
            "wiped" => redis.command(&["flushall"]).await,
            "paused" => redis.pause().await,
            "evicting" => evict(&redis).await,
            "restored" => {
                redis.kill().await;
                redis.start_again().await;
            }
            _ => redis.kill().await,
        }
        assert_eq!(b.check(payer, 1).await, "postgres", "after it was {loss}");
        a.claim(payer, 2).await;
        b.check(payer, 2).await;
        match loss {
            "killed" => redis.start_again().await,
            "paused" => redis.resume().await,
            _ => (),
        }
        for payer in 1..=payer {
            b.until_answered_by("redis", payer, 2).await;
        }
    }
    end(world, [a, b]).await;
}

/// Has Redis evict every mark, but not the key of their generation, and look as before.
async fn evict(redis: &Redis) {
    let set = async |what: &str, to: &str| redis.command(&["config", "set", what, to]).await;
    let () = set("maxmemory-policy", "volatile-random").await;
    let () = set("maxmemory", "1").await;
    // A write makes it look for room, and there is none.
    let client = redis::Client::open(&*redis.url).unwrap();
    let _: redis::RedisResult<()> =
        redis::cmd("set").arg("a").arg("b").query(&mut client.get_connection().unwrap());
    let () = set("maxmemory", "0").await;
    let () = set("maxmemory-policy", "noeviction").await;
    for (keys, expected) in [("quittance:promised:*", 0), ("quittance:generation:*", 1)] {
        assert_eq!(redis.command::<Vec<String>>(&["keys", keys]).await.len(), expected, "{keys}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_replica_that_cannot_reach_redis_is_known_to_those_that_can() {
    let world = World::stepped().await;
    let redis = Redis::start().await;
    let door = Door::before(&redis).await;
    let (a, b) = (
        Replica::start(&world, Some(&door.url)).await,
        Replica::start(&world, Some(&redis.url)).await,
    );
    a.until_answered_by("redis", 1, 0).await;
    b.until_answered_by("redis", 1, 0).await;
    door.shut();
    a.claim(1, 1).await;
    assert_eq!(world.count(STALE).await, 1);
    assert_eq!(b.check(1, 1).await, "postgres");
    assert_eq!(a.check(1, 1).await, "postgres");
    // Redis is believed again as soon as it has that payer, and no longer than until the next claim.
    b.until_answered_by("redis", 1, 1).await;
    a.claim(1, 2).await;
    assert_eq!(b.check(1, 2).await, "postgres");
    door.open();
    b.until_answered_by("redis", 1, 2).await;
    a.until_answered_by("redis", 1, 2).await;
    a.claim(1, 3).await;
    assert_eq!(b.check(1, 3).await, "redis");
    end(world, [a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_different_parts_of_redis_believe_neither() {
    let world = World::stepped().await;
    let (redis, other) = (Redis::start().await, Redis::start().await);
    let part = format!("{}/1", redis.url);
    for url in [&part, &other.url] {
        let a = Replica::start(&world, Some(&redis.url)).await;
        let b = Replica::start(&world, Some(url)).await;
        let payer = u64::try_from(url.len()).unwrap();
        for n in 1..=300 {
            let replicas = if n % 2 == 0 { [&a, &b] } else { [&b, &a] };
            replicas[0].claim(payer, n).await;
            replicas[1].check(payer, n).await;
        }
        a.end().await;
        b.end().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_committed_while_marks_are_restored_is_among_them() {
    let world = World::stepped().await;
    let redis = Redis::start().await;
    let (a, b) = (
        Replica::start(&world, Some(&redis.url)).await,
        Replica::start(&world, Some(&redis.url)).await,
    );
    b.until_answered_by("redis", 1, 0).await;
    a.until_answered_by("redis", 1, 0).await;
    let mut db = a.books.begin().await.unwrap();
    a.write(&mut db, 1, 1, now().seconds() + 300).await;
    let () = redis.command(&["flushall"]).await;
    world.until(BUILDING, 1).await;
    // Nothing is trusted before that claim is committed, however long it takes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.count(BUILDING).await, 1);
    b.check(1, 0).await;
    // What begins after the generation did is no reason to wait.
    let mut later = a.books.begin().await.unwrap();
    a.write(&mut later, 2, 1, now().seconds() + 300).await;
    db.commit().await.unwrap();
    assert_eq!(b.check(1, 1).await, "postgres");
    b.until_answered_by("redis", 1, 1).await;
    later.commit().await.unwrap();
    assert_eq!(b.check(2, 1).await, "redis");
    end(world, [a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_are_kept_for_as_long_as_they_can_count() {
    let world = World::stepped().await;
    let redis = Redis::start().await;
    let a = Replica::start(&world, Some(&redis.url)).await;
    a.until_answered_by("redis", 1, 0).await;
    let mark = format!(
        "quittance:promised:{}:{:#x}:{:#x}",
        world.services.chain.chain_id,
        key(1, 0).asset,
        key(1, 0).payer
    );
    let margin = 15 * 60;
    let for_ever = 100 * 365 * 24 * 60 * 60 - margin;
    for (nonce, lives, kept) in
        [(1, 60, 60), (2, 600, 600), (3, 30, 600), (4, u64::MAX >> 1, for_ever), (5, 60, for_ever)]
    {
        let mut db = a.books.begin().await.unwrap();
        a.write(&mut db, 1, nonce, now().seconds().saturating_add(lives)).await;
        db.commit().await.unwrap();
        let left: u64 = redis.command(&["ttl", &mark]).await;
        assert!((kept + margin - 20..=kept + margin).contains(&left), "{nonce}: {left}");
    }
    // Marked anew, it is kept as long.
    let () = redis.command(&["flushall"]).await;
    a.until_answered_by("redis", 1, 5).await;
    let left: u64 = redis.command(&["ttl", &mark]).await;
    assert!((for_ever..=for_ever + margin).contains(&left), "{left}");
    // Marks say nothing of blocks that are too old, or older than the marks.
    let old = Block { timestamp: UnixTime::from_seconds(now().seconds() - 700), ..block() };
    sqlx::query("update promise_filter set from_block = 1000").execute(&world.books).await.unwrap();
    let lower = Block { number: 999, ..block() };
    for (block, expected) in [(block(), 1), (old, 0), (lower, 0)] {
        let before = answered_by_redis();
        a.told_by(&block, &[key(1, 0)]).await;
        assert_eq!(answered_by_redis() - before, expected, "{block:?}");
    }
    end(world, [a]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_not_used_while_it_would_evict_and_doctor_says_so() {
    let world = World::stepped().await;
    let mut redis = Redis::start().await;
    let mut settings = world.services.settings.clone();
    settings.redis.url = Some(redis.url.as_str().into());
    let finding = async || {
        let findings = doctor::examine(&settings).await;
        findings.into_iter().find(|finding| finding.subject == "redis").unwrap()
    };
    assert!(finding().await.ok);
    let a = Replica::start(&world, Some(&redis.url)).await;
    a.until_answered_by("redis", 1, 0).await;
    let () = redis.command(&["config", "set", "maxmemory-policy", "allkeys-lru"]).await;
    assert_eq!(a.check(1, 0).await, "postgres");
    let found = finding().await;
    assert!(!found.ok && found.detail.contains("allkeys-lru"), "{found:?}");
    let () = redis.command(&["config", "set", "maxmemory-policy", "noeviction"]).await;
    a.until_answered_by("redis", 1, 0).await;
    redis.kill().await;
    assert!(!finding().await.ok);
    end(world, [a]).await;
}

/// Replicas claim and ask while Redis is killed, wiped, paused and cut off from one of them: what was
/// committed before a question is in its answer.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_committed_is_ever_missing_from_an_answer() {
    let world = World::stepped().await;
    let mut redis = Redis::start().await;
    let door = Door::before(&redis).await;
    let mut replicas = Vec::new();
    for url in [&redis.url, &redis.url, &door.url] {
        replicas.push(Arc::new(Replica::start(&world, Some(url)).await));
    }
    replicas[0].until_answered_by("redis", 0, 0).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let payers = (1..=8_u64).map(|payer| {
        let (replicas, is_over) = (replicas.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut n = 0;
            while !is_over.load(Ordering::Relaxed) {
                n += 1;
                let at = usize::try_from(payer + n).unwrap();
                replicas[at % 3].claim(payer, n).await;
                for offset in 1..=3 {
                    replicas[(at + offset) % 3].check(payer, n).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            n
        })
    });
    let payers: Vec<_> = payers.collect();
    for trouble in 0..12 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        match trouble % 4 {
            0 => redis.command(&["flushall"]).await,
            1 => {
                door.shut();
                tokio::time::sleep(Duration::from_millis(300)).await;
                door.open();
            }
            2 => {
                redis.pause().await;
                tokio::time::sleep(Duration::from_millis(300)).await;
                redis.resume().await;
            }
            _ => {
                redis.kill().await;
                redis.start_again().await;
            }
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for payer in payers {
        assert!(payer.await.unwrap() > 10);
    }
    assert!(answered_by_redis() > 10);
    world.until(TRUSTED, 1).await;
    for replica in replicas {
        Arc::into_inner(replica).unwrap().end().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_refuse_what_another_claimed_while_redis_comes_and_goes() {
    let world = World::stepped().await;
    let mut redis = Redis::start().await;
    let settings = [(REDIS_URL, &*redis.url.clone())];
    let replicas = world.replicas_with(&[&settings[..], &settings[..]]).await;
    world.until(TRUSTED, 1).await;
    let payments = [world.payment(0, 1_000), world.payment(1, 2_000), world.payment(2, 4_000)];
    let mut asked = Vec::new();
    for (n, payment) in (1..).zip(&payments) {
        match n {
            2 => redis.kill().await,
            3 => redis.start_again().await,
            _ => (),
        }
        asked.push(settle_in_background(&replicas[0], payment));
        world.until("select count(*) from settlement", n).await;
        if n == 1 {
            let marks: Vec<String> = redis.command(&["keys", "quittance:promised:*"]).await;
            assert_eq!((marks.len(), world.count(TRUSTED).await), (1, 1), "{marks:?}");
        }
        for replica in &replicas {
            let answer = replica.verify(payment).await;
            assert_eq!(
                answer["invalidReason"],
                json!("invalid_exact_evm_nonce_already_used"),
                "{answer}"
            );
        }
    }
    world.until("select count(*) from settlement where status = 'submitted'", 3).await;
    world.node.mine(1).await;
    for task in asked {
        assert_eq!(task.await.unwrap().expect("an answer")["success"], true);
    }
    world.check_books().await;
    for replica in replicas {
        replica.stop().await;
    }
    world.stop().await;
}
