//! Verifications that wait together are looked at together, and what was verified is not verified again.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    payments::AMOUNT,
    support::{Fault, Proxy, Service, World},
};

const RPC_URL: &str = "QUITTANCE__CHAINS__LOCAL__RPC_URL";
const CALL: &str = "eth_call";
/// Longer than everybody takes to arrive.
const SLOW: Duration = Duration::from_millis(1_500);

/// A service whose endpoint and token were asked who they are, so that only payments are asked about.
async fn warm(world: &World) -> (Proxy, Service) {
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    assert_eq!(service.verify(&world.payment(0, AMOUNT)).await["isValid"], true);
    (proxy, service)
}

async fn all_valid(service: &Service, payments: &[Value]) {
    let answers = join_all(payments.iter().map(|payment| service.verify(payment))).await;
    for answer in answers {
        assert_eq!(answer["isValid"], true, "{answer}");
    }
}

/// How many payments the chain was asked about so far.
async fn n_looked_at(service: &Service) -> u64 {
    let metrics = service.operations("/metrics").await.body;
    let line = metrics.lines().find(|line| line.starts_with("quittance_lens_payments_sum"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_arrives_while_a_call_is_under_way_shares_the_next() {
    let world = World::automine().await;
    let (proxy, service) = warm(&world).await;
    proxy.set(CALL, Fault::Delay(SLOW));
    let n_before = proxy.n_calls(CALL);
    let payments: Vec<Value> = (0..60).map(|n| world.payment(n % 8, AMOUNT)).collect();
    all_valid(&service, &payments).await;
    // One for who came first, and one for all who came meanwhile; a third if somebody was late.
    let n_calls = proxy.n_calls(CALL) - n_before;
    assert!((2..=3).contains(&n_calls), "{n_calls} calls");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_verification_is_one_call_and_no_wait() {
    let world = World::automine().await;
    let (proxy, service) = warm(&world).await;
    for n in 0..5 {
        let n_before = proxy.n_calls(CALL);
        all_valid(&service, &[world.payment(n, AMOUNT)]).await;
        assert_eq!(proxy.n_calls(CALL) - n_before, 1);
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_payments_are_looked_at_once() {
    let world = World::automine().await;
    let (proxy, service) = warm(&world).await;
    proxy.set(CALL, Fault::Delay(SLOW));
    let n_before = n_looked_at(&service).await;
    all_valid(&service, &vec![world.payment(1, AMOUNT); 40]).await;
    // Who comes after the question was put is answered by the next one: an answer is never older than
    // its question.
    let n = n_looked_at(&service).await - n_before;
    assert!((1..=3).contains(&n), "{n} payments were looked at");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_of_one_payer_are_judged_each_on_its_own() {
    let world = World::automine().await;
    let (proxy, service) = warm(&world).await;
    proxy.set(CALL, Fault::Delay(SLOW));
    let chain = &world.services.chain;
    let all = world.node.token_balance(chain.usdc, chain.payers[1].address).await;
    // Any of them could be paid; nobody has promised any of them.
    let payments: Vec<Value> = (0..5).map(|_| world.payment(1, all)).collect();
    all_valid(&service, &payments).await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_verified_is_settled_without_another_look_for_a_block() {
    let world = World::automine().await;
    let (proxy, service) = warm(&world).await;
    let n_reused = async || {
        let metrics = service.operations("/metrics").await.body;
        let line = metrics.lines().find(|line| line.starts_with("quittance_verdicts_reused_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let payment = world.payment(1, AMOUNT);
    all_valid(&service, std::slice::from_ref(&payment)).await;
    let n_before = proxy.n_calls(CALL);
    assert_eq!(service.settle(&payment).await["success"], json!(true));
    assert_eq!((n_reused().await, proxy.n_calls(CALL)), (1, n_before));

    // Two blocks later, and this process has heard of them, it is looked at again.
    let payment = world.payment(2, AMOUNT);
    all_valid(&service, std::slice::from_ref(&payment)).await;
    world.node.mine(2).await;
    all_valid(&service, &[world.payment(3, AMOUNT)]).await;
    let n_before = proxy.n_calls(CALL);
    assert_eq!(service.settle(&payment).await["success"], json!(true));
    assert_eq!((n_reused().await, proxy.n_calls(CALL)), (1, n_before + 1));
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_for_what_was_asked_and_nothing_else() {
    let world = World::automine().await;
    let (_proxy, service) = warm(&world).await;
    let payment = world.payment(1, AMOUNT);
    all_valid(&service, std::slice::from_ref(&payment)).await;
    let mut dearer = payment.clone();
    dearer["paymentRequirements"]["amount"] = json!((AMOUNT + 1).to_string());
    let answer = service.settle(&dearer).await;
    let mismatch = "invalid_exact_evm_payload_authorization_value_mismatch";
    assert_eq!(answer["errorReason"], mismatch, "{answer}");
    let mut elsewhere = payment.clone();
    elsewhere["paymentRequirements"]["payTo"] = json!(world.services.chain.payers[3].address);
    let answer = service.settle(&elsewhere).await;
    assert_eq!(answer["errorReason"], "invalid_exact_evm_recipient_mismatch", "{answer}");
    assert_eq!(service.settle(&payment).await["success"], json!(true));
    service.stop().await;
    world.stop().await;
}
