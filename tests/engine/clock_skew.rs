//! The machines of two replicas do not agree on the time. Leases run on the database's clock, and
//! settlements expire by the chain's.

#![cfg(feature = "fault-injection")]

use std::time::{Duration, Instant};

use quittance::domain::Amount;
use serde_json::Value;

use crate::{
    settle_in_background,
    support::{LEASE_MS, Service, World, now},
};

const CLOCK: &str = "QUITTANCE_CLOCK_OFFSET_SECONDS";
const AHEAD: &str = "300";
const BEHIND: &str = "-300";

/// A payment that is valid for this long by our clock, which is also the chain's.
fn payment_for(world: &World, n: usize, seconds: u64) -> Value {
    let amount = Amount::parse("1000").unwrap();
    let buyer = world.buyer(n);
    let mut authorization = buyer.authorization(world.services.chain.payee.address, amount, now());
    let valid_before = now().saturating_add(Duration::from_secs(seconds));
    authorization.valid_before = valid_before.as_u256();
    buyer.request(&authorization).unwrap()
}

async fn replicas(world: &World, owners_clock: &str, others_clock: &str) -> (Service, Service) {
    let owner = world.service_with(&[(LEASE_MS, "2000"), (CLOCK, owners_clock)]).await;
    world.until("select count(*) from lease where held_until > now()", 2).await;
    (owner, world.service_with(&[(LEASE_MS, "2000"), (CLOCK, others_clock)]).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_whose_clocks_are_ten_minutes_apart_settle_and_take_over() {
    for (owners_clock, others_clock) in [(AHEAD, BEHIND), (BEHIND, AHEAD)] {
        let world = World::automine().await;
        let (owner, other) = replicas(&world, owners_clock, others_clock).await;
        let mut payments = Vec::new();
        for (n, replica) in [&owner, &other, &owner, &other].into_iter().enumerate() {
            // Long enough for the clock that is ahead too.
            let payment = payment_for(&world, n, 900);
            let answer = replica.settle(&payment).await;
            assert_eq!(answer["success"], true, "{answer}");
            payments.push(payment);
        }
        // Nobody took anything from an owner that renews.
        assert_eq!(world.count("select max(epoch) from lease").await, 1);
        let began = Instant::now();
        owner.kill().await;
        let taken_over = "select count(*) from lease where held_until > now() and epoch = 2";
        world.until(taken_over, 2).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(6), "a lease of 2 s was taken over after {took:?}");
        let payment = payment_for(&world, 4, 900);
        let answer = other.settle(&payment).await;
        assert_eq!(answer["success"], true, "{answer}");
        payments.push(payment);
        world.check_paid_once(&payments).await;
        world.check_at_rest().await;
        world.check_books().await;
        other.stop().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_clock_is_ahead_fails_nothing_that_the_chain_would_pay() {
    let world = World::automine().await;
    let (owner, other) = replicas(&world, AHEAD, "0").await;
    // By the owner's clock this expired three minutes ago.
    let payment = payment_for(&world, 0, 120);
    world.pause_wallets().await;
    let asked = settle_in_background(&other, &payment);
    world.until("select count(*) from settlement where status = 'claimed'", 1).await;
    // An old claim, which the wallet looks into before it signs.
    sqlx::query("update settlement set created_at = created_at - interval '10 seconds'")
        .execute(&world.books)
        .await
        .unwrap();
    world.resume_wallets().await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    assert!(owner.log().contains("stored a transaction"), "{}", owner.log());
    world.check_paid_once(&[payment]).await;
    world.check_books().await;
    other.stop().await;
    owner.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_clock_is_behind_fails_what_the_chain_would_not_pay() {
    let world = World::stepped().await;
    let (owner, other) = replicas(&world, BEHIND, "0").await;
    let payment = payment_for(&world, 0, 120);
    let asked = settle_in_background(&other, &payment);
    world.node.until_pending(1).await;
    world.node.increase_time(180).await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    let reason = "invalid_exact_evm_payload_authorization_valid_before";
    assert_eq!(answer["errorReason"], reason, "{answer}");
    world.check_books().await;
    other.stop().await;
    owner.stop().await;
    world.stop().await;
}
