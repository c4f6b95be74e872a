//! Everybody pays at once, processes die and blocks are taken back: a cap is neither exceeded nor left
//! unused, and what fails can be used again.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    answers, settle_in_background,
    support::{Fault, LEASE_MS, N_IN_FLIGHT_MAX, RPC_URL, SHARED_KEYS, Service, World},
};

const CAPPED: &str = "cap_exceeded";
const FAILED: &str = "select count(*) from settlement where status = 'failed'";
const CLAIMED: &str = "select count(*) from settlement";
const PAID: &str =
    "select count(*) from settlement where status in ('included', 'safe', 'finalized')";
const HELD: &str = "select count(*) from budget_hold where not is_released";
const N_PAYMENTS: usize = 500;
const CAP: i64 = 100;
const AMOUNT: u64 = 10;

/// Asks until there is an answer that says what became of the payment, as the SDKs do, and of another
/// replica where one is away.
async fn outcome(urls: Vec<String>, key: String, payment: Value, n: usize) -> Value {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(40)).build().unwrap();
    for attempt in 0..600 {
        let url = &urls[(n + attempt) % urls.len()];
        let asked = http
            .post(format!("{url}/settle"))
            .bearer_auth(&key)
            .header("Idempotency-Key", format!("order-{n}"))
            .json(&payment);
        if let Ok(answer) = asked.send().await
            && answer.status() == 200
        {
            let answer: Value = answer.json().await.unwrap();
            if answer["errorReason"] != json!("settlement_pending") {
                return answer;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("payment {n} was never told");
}

/// Mines a block a quarter of a second, until it is aborted.
fn mining(world: &World) -> tokio::task::JoinHandle<()> {
    let node = world.node.clone();
    tokio::spawn(async move {
        loop {
            node.mine(1).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_at_once_with_a_cap_for_a_hundred_settle_exactly_a_hundred() {
    let world = World::stepped().await;
    world.far_from_a_full_hour().await;
    world.add_wallets(2).await;
    let short = (LEASE_MS, "2000");
    let settings = [&[SHARED_KEYS, short][..], &[SHARED_KEYS, short], &[SHARED_KEYS, short]];
    let mut replicas = world.replicas_with(&settings).await;
    let most = (CAP * i64::try_from(AMOUNT).unwrap()).to_string();
    let usdc = world.usdc();
    world.cap(&["--for", "payer", "--amount", &most, "--asset", &usdc, "--per", "day"]).await;

    let urls: Vec<String> = replicas.iter().map(|service| service.url.clone()).collect();
    let key = replicas[0].api_key.clone();
    let payments: Vec<Value> = (0..N_PAYMENTS).map(|_| world.payment(0, AMOUNT)).collect();
    let asked: Vec<_> = payments
        .iter()
        .enumerate()
        .map(|(n, payment)| tokio::spawn(outcome(urls.clone(), key.clone(), payment.clone(), n)))
        .collect();
    // Some are promised and some of those are mined; then a process dies, and two blocks are replaced.
    while world.count(CLAIMED).await < CAP / 4 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.node.mine(2).await;
    replicas.remove(0).kill().await;
    let head = world.node.block_number().await;
    world.node.reorg(head.min(2), &[]).await;
    let blocks = mining(&world);
    let told: Vec<Value> = join_all(asked).await.into_iter().map(Result::unwrap).collect();

    let of = |answer: &Value| answer["errorReason"].as_str().map(str::to_owned);
    let n_paid = told.iter().filter(|answer| answer["success"] == true).count();
    let n_capped = told.iter().filter(|answer| of(answer).as_deref() == Some(CAPPED)).count();
    assert_eq!(n_paid + n_capped, N_PAYMENTS, "{told:#?}");
    assert_eq!(i64::try_from(n_paid), Ok(CAP), "exactly as many as the cap leaves room for");
    world.until(PAID, CAP).await;
    assert_eq!(world.count(CLAIMED).await, CAP, "nothing else was promised");
    let paid: Vec<Value> = payments
        .iter()
        .zip(&told)
        .filter(|(_, answer)| answer["success"] == true)
        .map(|(payment, _)| payment.clone())
        .collect();
    world.until("select count(*) from transaction where status = 'open'", 0).await;
    blocks.abort();
    world.check_paid_once(&paid).await;
    world.check_books().await;
    world.check_at_rest().await;
    end(world, replicas).await;
}

async fn end(world: World, services: Vec<Service>) {
    for service in services {
        service.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_can_be_used_again() {
    let world = World::stepped().await;
    world.far_from_a_full_hour().await;
    let proxy = world.proxy();
    // Without fee facts nothing can be signed.
    proxy.set("eth_feeHistory", Fault::DropBefore);
    let settings = [(RPC_URL, &*proxy.url), ("QUITTANCE__SETTLE__WAIT_MS", "300")];
    let service = world.service_with(&settings).await;
    world.cap(&["--for", "payer", "--count", "3", "--per", "day"]).await;
    for _ in 0..3 {
        assert_eq!(service.post("/settle", &world.payment(0, AMOUNT)).await.status, 503);
    }
    let answer = service.settle(&world.payment(0, AMOUNT)).await;
    assert_eq!(answer["errorReason"], json!(CAPPED), "{answer}");
    world.node.increase_time(3_600).await;
    world.node.mine(1).await;
    world.until(FAILED, 3).await;
    assert_eq!(world.count(HELD).await, 0);
    world.check_books().await;
    proxy.heal();
    // The chain's clock is an hour ahead, and payments are made by this machine's.
    let late = |n: usize| {
        let mut authorization = world.authorization(n, AMOUNT);
        authorization.valid_before += alloy::primitives::U256::from(7_200);
        world.buyer(n).request(&authorization).unwrap()
    };
    for _ in 0..3 {
        let asked = settle_in_background(&service, &late(0));
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        // Its wallet may take longer to find the fees again than the caller waits.
        let told = answers(vec![asked]).await;
        let is_claimed = told[0]["success"] == json!(true)
            || told[0]["errorReason"] == json!("settlement_pending")
            || told[0]["errorReason"] == json!("unexpected_settle_error");
        assert!(is_claimed, "{told:?}");
        world.until("select count(*) from settlement where status = 'submitted'", 0).await;
    }
    assert_eq!(world.count(PAID).await, 3);
    let answer = service.settle(&late(0)).await;
    assert_eq!(answer["errorReason"], json!(CAPPED), "{answer}");
    assert_eq!(world.count(HELD).await, 3);
    world.check_books().await;
    end(world, vec![service]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_taken_back_changes_no_counter() {
    let world = World::stepped().await;
    world.far_from_a_full_hour().await;
    let service = world.service_with(&[(N_IN_FLIGHT_MAX, "1")]).await;
    let chain_id = world.services.chain.chain_id.to_string();
    world.cap(&["--for", "merchant", "--count", "2", "--per", "day"]).await;
    let lots = "999999999999999999";
    world.cap(&["--for", "payer", "--gas-wei", lots, "--chain", &chain_id, "--per", "day"]).await;
    let asked = settle_in_background(&service, &world.payment(0, AMOUNT));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(answers(vec![asked]).await[0]["success"], json!(true));
    for _ in 0..2 {
        world.node.reorg(1, &[]).await;
        world.until("select count(*) from settlement where status = 'submitted'", 1).await;
        assert_eq!(world.count(HELD).await, 1);
        world.check_books().await;
        let spent = "select coalesce(sum(wei), 0)::bigint from gas_spent";
        assert_eq!(world.count(spent).await, 0, "the gas is taken back too");
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        world.until(PAID, 1).await;
        assert!(world.count(spent).await > 0);
        world.check_books().await;
    }
    let asked = settle_in_background(&service, &world.payment(1, AMOUNT));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(answers(vec![asked]).await[0]["success"], json!(true));
    let answer = service.settle(&world.payment(2, AMOUNT)).await;
    assert_eq!(answer["errorReason"], json!(CAPPED), "{answer}");
    world.check_books().await;
    end(world, vec![service]).await;
}
