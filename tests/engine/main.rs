//! What the engine must survive, one fear a file, on a real anvil and a real Postgres.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod anvil;
mod books;
mod caps_under_fire;
mod clock_skew;
mod crash_points;
mod database;
mod defects;
mod duplicates;
mod endpoints;
mod expiry;
mod front_run;
mod latency;
mod leases;
mod lens_endpoints;
mod lying_node;
mod odd_token;
mod poison;
mod promises;
mod redis_lost;
mod reorg;
mod restart;
mod sending;
mod smart_wallets;
mod tools;
mod wallets_cli;

mod batches;
mod cancel;
mod depths;
mod evicted;
mod fees;
mod foreign_nonce;
mod hostile_payers;
mod hostile_wallets;
mod lagging_head;
mod lost_answers;
mod out_of_gas;
mod spoiled_batch;

use alloy::primitives::B256;
use futures_util::future::join_all;
use serde_json::Value;
use support::{Proxy, RPC_URL, Service, World};
use tokio::task::JoinHandle;

const N_IN_FLIGHT_MAX: &str = "QUITTANCE__CHAINS__LOCAL__N_IN_FLIGHT_MAX";
const N_TOGETHER_MAX: &str = "QUITTANCE__CHAINS__LOCAL__N_PAYMENTS_PER_TRANSACTION_MAX";
const DEPLOY_SETTLER: &str = "QUITTANCE__CHAINS__LOCAL__DEPLOY_SETTLER";

/// Asks for a settlement in the background, as a resource server that waits would.
fn settle_in_background(service: &Service, payment: &Value) -> JoinHandle<Option<Value>> {
    let (url, key, payment) = (service.url.clone(), service.api_key.clone(), payment.clone());
    tokio::spawn(async move {
        let http = reqwest::Client::new();
        let answer =
            http.post(format!("{url}/settle")).bearer_auth(key).json(&payment).send().await;
        answer.ok()?.json().await.ok()
    })
}

/// What callers that waited were told.
async fn answers(asked: Vec<JoinHandle<Option<Value>>>) -> Vec<Value> {
    let all = join_all(asked).await;
    all.into_iter().map(|answer| answer.unwrap().expect("an answer")).collect()
}

fn assert_all_paid(answers: &[Value]) {
    assert!(answers.iter().all(|answer| answer["success"] == true), "{answers:#?}");
}

/// A service that reaches the chain through a proxy, and the proxy.
async fn behind_proxy(world: &World, settings: &[(&str, &str)]) -> (Proxy, Service) {
    let proxy = world.proxy();
    let all: Vec<_> = settings.iter().copied().chain([(RPC_URL, &*proxy.url)]).collect();
    let service = world.service_with(&all).await;
    (proxy, service)
}

/// Checks what holds at any time, and stops everything.
async fn end(world: World, service: Service, proxies: &[&Proxy]) {
    world.check_books().await;
    world.check_sent(proxies).await;
    service.stop().await;
    world.stop().await;
}

/// Has one transaction carry all of `payments` in their order, and leaves it in the pool. The service must have
/// [`N_IN_FLIGHT_MAX`] of 1: while its only place is taken by a payment of one unit, which is paid
/// then, the others gather.
async fn in_one_transaction(
    world: &World,
    service: &Service,
    payments: &[Value],
) -> Vec<JoinHandle<Option<Value>>> {
    let opener = settle_in_background(service, &world.payment(0, 1));
    world.node.until_pending(1).await;
    let mut asked = Vec::new();
    // One at a time: those that are verified together are claimed in any order.
    for payment in payments {
        asked.push(settle_in_background(service, payment));
        let n = i64::try_from(asked.len()).unwrap();
        world.until("select count(*) from settlement where status = 'claimed'", n).await;
    }
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![opener]).await);
    world.node.until_pending(1).await;
    let n = i64::try_from(payments.len()).unwrap();
    let n_carried = "select count(*) from transaction_item join transaction using (transaction_id)
        where transaction.status = 'open'";
    world.until(n_carried, n).await;
    asked
}

/// Mines a block that passes by what is open, and waits until `n` transactions were sent for it.
async fn until_sent_again(world: &World, proxy: &Proxy, n: u64) {
    const SEND: &str = "eth_sendRawTransaction";
    let enough = proxy.n_calls(SEND) + n;
    world.node.mine(1).await;
    proxy.until_n_calls(SEND, enough).await;
}

/// The newest attempt of the newest transaction: its hash and its gas limit.
async fn newest_attempt(world: &World) -> (B256, u64) {
    let (hash, gas_limit): (Vec<u8>, i64) = sqlx::query_as(
        "select transaction_hash, gas_limit from attempt order by transaction_id desc, sequence desc
         limit 1",
    )
    .fetch_one(&world.books)
    .await
    .unwrap();
    (B256::from_slice(&hash), u64::try_from(gas_limit).unwrap())
}
