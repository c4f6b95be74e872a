//! A policy's limits, each from both sides, at every merchant, before and at settlement.

use alloy::primitives::{Address, U256};
use futures_util::future::join_all;
use quittance::{
    chain::transfer_calldata,
    policies::{Document, Limits},
    verify::EcdsaSignature,
};
use serde_json::{Value, json};

use crate::{
    callers::{merchant_key, reason},
    support::{Answer, Service, World, signature_of, units},
};

const EXCEEDED: Option<&str> = Some("spending_policy_exceeded");
const EXPIRED: Option<&str> = Some("spending_policy_expired");
const WRONG_PAYEE: Option<&str> = Some("spending_policy_payee_not_allowed");
const SETTLED: &str = "select count(*) from settlement";

/// Registers those limits for the n-th buyer, who signs them.
async fn limit(service: &Service, world: &World, n: usize, change: impl FnOnce(&mut Limits)) {
    let account = &world.services.chain.payers[n];
    let mut policy = world.policy_of(account.address, 1);
    change(&mut policy.limits);
    service.register(&Document::Policy(policy), account).await;
}

fn assert_paid(answer: &Answer) {
    assert_eq!(answer.json()["success"], json!(true), "{}", answer.body);
}

/// Both questions are answered with that reason, and nothing is promised.
async fn assert_refused(
    service: &Service,
    world: &World,
    payment: &Value,
    why: Option<&str>,
) -> String {
    let n_before = world.count(SETTLED).await;
    let told = service.until_verdict(payment, why).await;
    let answer = service.settle(payment).await;
    assert_eq!(reason(&answer), why, "{answer}");
    assert_eq!(answer["errorMessage"], told["invalidMessage"], "both say the same");
    assert_eq!(world.count(SETTLED).await, n_before);
    told["invalidMessage"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_payment_may_be_as_large_as_the_policy_says() {
    let world = World::automine().await;
    let service = world.service().await;
    limit(&service, &world, 0, |limits| limits.per_payment = units(1_000)).await;
    let said = assert_refused(&service, &world, &world.payment(0, 1_001), EXCEEDED).await;
    assert!(said.contains("1000") && said.contains("1001"), "{said}");
    assert_paid(&service.post("/settle", &world.payment(0, 1_000)).await);
    assert_paid(&service.post("/settle", &world.payment(1, 1_001)).await);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_and_the_whole_are_budgets_that_all_merchants_share() {
    let world = World::automine().await;
    let service = world.service().await;
    let other = merchant_key(&world, "another merchant").await;
    limit(&service, &world, 0, |limits| limits.per_day = units(2_500)).await;
    limit(&service, &world, 1, |limits| limits.total = units(2_500)).await;
    for (n, span) in [(0, "a day"), (1, "in total")] {
        assert_paid(&service.post("/settle", &world.payment(n, 1_000)).await);
        assert_paid(&service.post_as(&other, "/settle", &world.payment(n, 1_000)).await);
        let said = assert_refused(&service, &world, &world.payment(n, 501), EXCEEDED).await;
        for part in ["2500", span, "500 are left", "501"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let payment = world.payment(n, 501);
        let answer = service.post_as(&other, "/settle", &payment).await.json();
        assert_eq!(reason(&answer), EXCEEDED, "{answer}");
        assert_paid(&service.post_as(&other, "/settle", &world.payment(n, 500)).await);
        let said = assert_refused(&service, &world, &world.payment(n, 1), EXCEEDED).await;
        assert!(said.contains(" 0 are left"), "{said}");
    }
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_payees_of_the_policy_are_paid() {
    let world = World::automine().await;
    let service = world.service().await;
    let [named, another, stranger] = [0x31, 0x32, 0x33].map(Address::repeat_byte);
    limit(&service, &world, 0, |limits| limits.payees = vec![named, another]).await;
    let payment = world.payment_to(stranger, 0, 100);
    let said = assert_refused(&service, &world, &payment, WRONG_PAYEE).await;
    assert!(said.contains(&stranger.to_string()), "{said}");
    for payee in [named, another] {
        assert_paid(&service.post("/settle", &world.payment_to(payee, 0, 100)).await);
    }
    assert_paid(&service.post("/settle", &world.payment_to(stranger, 1, 100)).await);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_open_from_its_first_second_to_the_one_before_its_last_by_the_blocks_time() {
    let world = World::stepped().await;
    let service = world.service_with(&[("QUITTANCE__SETTLE__WAIT_MS", "2000")]).await;
    let start = crate::support::now().seconds() + 10_000;
    limit(&service, &world, 0, |limits| {
        limits.valid_after = U256::from(start);
        limits.valid_before = U256::from(start + 100);
    })
    .await;
    let payee = world.services.chain.payee.address;
    for (at, why) in [
        (start - 1, EXPIRED),
        (start, None),
        (start + 99, None),
        (start + 100, EXPIRED),
        (start + 101, EXPIRED),
    ] {
        world.node.set_time(at).await;
        world.node.mine(1).await;
        let payment = world.payment_to(payee, 0, 100);
        service.until_verdict(&payment, why).await;
        let answer = service.settle(&payment).await;
        let expected = why.or(Some("settlement_pending"));
        assert_eq!(reason(&answer), expected, "{} seconds in: {answer}", at as i64 - start as i64);
    }
    service.stop().await;
    world.stop().await;
}

/// Makes a policy forbid a payment.
type Spoil = fn(&mut Limits);

#[tokio::test(flavor = "multi_thread")]
async fn of_several_reasons_the_first_is_told() {
    let world = World::automine().await;
    let service = world.service().await;
    let account = &world.services.chain.payers[0];
    let ways: [(&str, Spoil); 3] = [
        ("spending_policy_payee_not_allowed", |limits| {
            limits.payees = vec![Address::repeat_byte(0x31)];
        }),
        ("spending_policy_expired", |limits| limits.valid_before = U256::from(1)),
        ("spending_policy_exceeded", |limits| limits.per_payment = units(0)),
    ];
    let mut nonce = 0;
    for (n, (first, spoil_first)) in ways.iter().enumerate() {
        for (_, spoil_second) in &ways[n..] {
            nonce += 1;
            let mut policy = world.policy_of(account.address, nonce);
            spoil_second(&mut policy.limits);
            spoil_first(&mut policy.limits);
            service.register(&Document::Policy(policy), account).await;
            service.until_verdict(&world.payment(0, 100), Some(first)).await;
        }
    }
    // What is wrong with the payment itself comes before all of it.
    let mut payment = world.payment(0, 100);
    payment["paymentPayload"]["payload"]["signature"] = json!("0x00");
    assert_eq!(reason(&service.verify(&payment).await), Some("invalid_exact_evm_signature"));
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_at_once_never_exceed_a_budget() {
    let world = World::automine().await;
    let replicas = world.replicas(2).await;
    limit(&replicas[0], &world, 0, |limits| limits.total = units(1_000)).await;
    let payments: Vec<Value> = (0..40).map(|_| world.payment(0, 100)).collect();
    let asked = payments.iter().zip(replicas.iter().cycle());
    let answers = join_all(asked.map(|(payment, replica)| replica.settle(payment))).await;
    let (paid, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer["success"] == json!(true));
    assert_eq!((paid.len(), refused.len()), (10, 30), "{answers:?}");
    for answer in refused {
        assert_eq!(reason(answer), EXCEEDED, "{answer}");
    }
    assert_eq!(world.payee_balance().await, 1_000);
    world.check_books().await;
    for replica in replicas {
        replica.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_given_back_and_what_somebody_else_sends_is_not() {
    let world = World::stepped().await;
    let service = world.service_with(&[("QUITTANCE__SETTLE__WAIT_MS", "2000")]).await;
    limit(&service, &world, 0, |limits| limits.total = units(1_000)).await;
    let account = &world.services.chain.payers[0];
    let money = world.money_of(account.address);
    let left = async || {
        let now = crate::support::now().seconds();
        let report = service.read_policy(money, now, account).await.json();
        report["budgets"]["total"]["left"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(&service.settle(&world.payment(0, 700)).await), Some("settlement_pending"));
    assert_eq!(left().await, "300");
    assert_refused(&service, &world, &world.payment(0, 301), EXCEEDED).await;
    // It expires before it is mined.
    world.node.increase_time(3_600).await;
    world.node.mine(1).await;
    world.until("select count(*) from settlement where status = 'failed'", 1).await;
    assert_eq!(left().await, "1000");
    let mut authorization = world.authorization(0, 1_000);
    authorization.valid_before = U256::MAX;
    let payment = world.buyer(0).request(&authorization).unwrap();
    service.until_verdict(&payment, None).await;
    assert_eq!(reason(&service.settle(&payment).await), Some("settlement_pending"));
    // A stranger is faster; the payment is paid all the same.
    let signature = EcdsaSignature::parse(&signature_of(&payment)).unwrap();
    let call = transfer_calldata(&authorization, &signature);
    world.stranger_calls(money.asset, call, 150_000).await;
    world.node.mine(1).await;
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    assert_eq!(left().await, "0");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
