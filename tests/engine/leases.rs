//! Several replicas over one database: who owns what, and who takes over when one stops, dies or
//! sleeps.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    settle_in_background,
    support::{
        Fault, LEASE_MS, N_IN_FLIGHT_MAX, N_TOGETHER_MAX, RPC_URL, SHARED_KEYS, Service, World,
    },
};

const INCLUDED: &str = "select count(*) from settlement where status = 'included'";
/// Leases that somebody holds who was not the first.
const TAKEN_OVER: &str = "select count(*) from lease where held_until > now() and epoch > 1";
const OWNERS: &str = "select count(distinct holder) from lease where lease_name like 'wallet:%' and held_until > now()";
/// Transactions that an earlier owner stored after a later one had begun.
const OUT_OF_ORDER: &str = "select count(*) from (
    select epoch, lag(epoch) over (partition by wallet_id order by account_nonce) as before
    from transaction) as stored where epoch < before";

/// An owner of the wallet and the follower, and a replica that owns nothing.
async fn owner_and_other(world: &World, settings: &[(&str, &str)]) -> (Service, Service) {
    let owner = world.service_with(settings).await;
    world.until("select count(*) from lease where held_until > now()", 2).await;
    (owner, world.service_with(settings).await)
}

fn n_leases_taken(service: &Service, name: &str) -> usize {
    let is_taken = |line: &&str| line.contains("took a lease") && line.contains(name);
    service.log().lines().filter(is_taken).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_share_the_wallets_and_pay_what_any_of_them_accepts() {
    let world = World::stepped().await;
    world.add_wallets(2).await;
    let settings = [SHARED_KEYS, (LEASE_MS, "5000"), (N_TOGETHER_MAX, "1"), (N_IN_FLIGHT_MAX, "2")];
    let replicas = world.replicas_with(&[&settings[..]; 3]).await;
    world.until(OWNERS, 3).await;
    let payments: Vec<_> = (0..12).map(|n| world.payment(n % 8, 1_000)).collect();
    let asked: Vec<_> = payments
        .iter()
        .zip(replicas.iter().cycle())
        .map(|(payment, replica)| settle_in_background(replica, payment))
        .collect();
    for _ in 0..2 {
        // Two of each wallet.
        world.node.until_pending(6).await;
        world.node.mine(1).await;
    }
    for answer in join_all(asked).await {
        let answer = answer.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{answer}");
    }
    assert_eq!(world.count("select count(distinct wallet_id) from transaction").await, 3);
    for replica in replicas {
        assert!(replica.log().contains("stored a transaction"), "{}", replica.log());
        replica.stop().await;
    }
    world.check_paid_once(&payments).await;
    world.check_at_rest().await;
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_answered_where_it_waits_whoever_owns_the_wallet() {
    let world = World::automine().await;
    let (owner, other) = owner_and_other(&world, &[]).await;
    for n in 0..3 {
        let answer = other.settle(&world.payment(n, 1_000)).await;
        assert_eq!(answer["success"], true, "{answer}");
    }
    assert!(!other.log().contains("stored a transaction"), "{}", other.log());
    assert_eq!(world.count(TAKEN_OVER).await, 0);
    world.check_books().await;
    other.stop().await;
    owner.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_replicas_that_start_at_the_same_moment_one_follows() {
    let world = World::automine().await;
    let replicas = world.replicas(2).await;
    for (n, replica) in replicas.iter().enumerate() {
        assert_eq!(replica.settle(&world.payment(n, 1_000)).await["success"], true);
    }
    let n_taken: usize = replicas.iter().map(|replica| n_leases_taken(replica, "follower:")).sum();
    assert_eq!(n_taken, 1);
    assert_eq!(world.count(TAKEN_OVER).await, 0);
    world.check_books().await;
    for replica in replicas {
        replica.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_stops_hands_over_at_once() {
    let world = World::stepped().await;
    let (owner, other) = owner_and_other(&world, &[(LEASE_MS, "60000")]).await;
    let payment = world.payment(0, 1_000);
    let asked = settle_in_background(&other, &payment);
    world.node.until_pending(1).await;
    let began = Instant::now();
    owner.stop().await;
    world.until(TAKEN_OVER, 2).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "a lease of a minute was handed over after {took:?}");
    world.node.mine(1).await;
    assert_eq!(asked.await.unwrap().expect("an answer")["success"], true);
    world.check_paid_once(&[payment]).await;
    world.check_at_rest().await;
    world.check_books().await;
    other.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_is_replaced_when_its_lease_ends() {
    let world = World::stepped().await;
    let (owner, other) = owner_and_other(&world, &[(LEASE_MS, "2000")]).await;
    let payment = world.payment(0, 1_000);
    let asked = settle_in_background(&other, &payment);
    world.node.until_pending(1).await;
    let began = Instant::now();
    owner.kill().await;
    world.until(TAKEN_OVER, 2).await;
    // The lease, the second in which the other looks, and what a busy machine adds.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "a lease of two seconds was taken over after {took:?}");
    world.node.mine(1).await;
    assert_eq!(asked.await.unwrap().expect("an answer")["success"], true);
    assert_eq!(world.count("select count(*) from attempt").await, 1);
    world.check_paid_once(&[payment]).await;
    world.check_at_rest().await;
    world.check_books().await;
    other.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_slept_through_its_lease_commits_nothing() {
    let world = World::stepped().await;
    let proxies = [world.proxy(), world.proxy()];
    let owner = world.service_with(&[(LEASE_MS, "2000"), (RPC_URL, &proxies[0].url)]).await;
    world.until("select count(*) from lease where held_until > now()", 2).await;
    let other = world.service_with(&[(LEASE_MS, "2000"), (RPC_URL, &proxies[1].url)]).await;
    let payments: Vec<_> = (0..4).map(|n| world.payment(n, 1_000)).collect();
    let first = settle_in_background(&owner, &payments[0]);
    world.node.until_pending(1).await;
    owner.pause().await;
    let second = settle_in_background(&other, &payments[1]);
    world.until(TAKEN_OVER, 2).await;
    world.node.until_pending(2).await;
    world.node.mine(1).await;
    assert_eq!(second.await.unwrap().expect("an answer")["success"], true);
    world.until(INCLUDED, 2).await;
    let third = settle_in_background(&other, &payments[2]);
    world.node.until_pending(1).await;

    owner.resume().await;
    let fourth = settle_in_background(&owner, &payments[3]);
    world.node.until_pending(2).await;
    world.node.mine(1).await;
    for answer in [first, third, fourth] {
        let answer = answer.await.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{answer}");
    }
    // What it stored while it was the owner, and nothing later.
    assert_eq!(world.count("select count(*) from transaction where epoch = 1").await, 1);
    assert_eq!(world.count(OUT_OF_ORDER).await, 0);
    assert!(owner.log().contains("lost a lease"), "{}", owner.log());
    world.check_sent(&[&proxies[0], &proxies[1]]).await;
    world.check_paid_once(&payments).await;
    world.check_at_rest().await;
    world.check_books().await;
    owner.stop().await;
    other.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_falls_asleep_inside_a_commit_does_not_finish_it() {
    let world = World::stepped().await;
    let proxy = world.proxy();
    // Without fee facts nothing can be signed, so that the row can be locked first.
    proxy.set("eth_feeHistory", Fault::DropBefore);
    let settings = [(LEASE_MS, "2000"), (RPC_URL, &*proxy.url)];
    let (owner, other) = owner_and_other(&world, &settings).await;
    let payment = world.payment(0, 1_000);
    let asked = settle_in_background(&owner, &payment);
    world.until("select count(*) from settlement", 1).await;
    let mut lock = world.books.begin().await.unwrap();
    sqlx::query("select from wallet for update").execute(&mut *lock).await.unwrap();
    proxy.heal();
    let blocked = "select count(*) from pg_stat_activity
        where wait_event_type = 'Lock' and query like '%next_account_nonce%'";
    world.until(blocked, 1).await;
    owner.pause().await;
    // Its statement gets the row now; the commit would be next, and it sleeps. Postgres ends its
    // session after ten seconds, because it holds the lease's row against the successor.
    lock.rollback().await.unwrap();
    world.until(TAKEN_OVER, 2).await;
    world.node.until_pending(1).await;
    owner.resume().await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(world.count("select count(*) from transaction where epoch = 1").await, 0);
    assert_eq!(world.count("select count(*) from transaction").await, 1);
    world.check_sent(&[&proxy]).await;
    world.check_paid_once(&[payment]).await;
    world.check_at_rest().await;
    world.check_books().await;
    owner.stop().await;
    other.stop().await;
    world.stop().await;
}
