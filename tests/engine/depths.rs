//! How deep a payment must stand before its caller is told success is the caller's choice.

use std::time::Duration;

use quittance::app::dev::ChainRequest;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    answers, assert_all_paid, behind_proxy, end,
    front_run::cancellation,
    settle_in_background,
    support::{Answer, Draft, Fault, Proxy, Service, World},
};

const WAIT_FOR: &str = "Quittance-Wait-For";
const WAIT_MS: &str = "QUITTANCE__SETTLE__WAIT_MS";
const INCLUDED: &str = "select count(*) from settlement where status = 'included'";
const ANSWERED: &str = "select count(*) from settlement where answered_at is not null";

/// A chain whose safe head is two blocks behind, and whose finalized one is four.
async fn world() -> World {
    let slots_in_an_epoch = Some(2);
    World::start(ChainRequest { no_mining: true, slots_in_an_epoch, ..ChainRequest::default() })
        .await
}

/// `POST /settle` that asks for a depth.
async fn settle(service: &Service, payment: &Value, depth: &str) -> Answer {
    let headers = [service.authorization(), (WAIT_FOR, depth.to_owned())];
    service.send(Method::POST, "/settle", &headers, payment.to_string()).await
}

fn settle_in_background_at(
    service: &Service,
    payment: &Value,
    depth: &'static str,
) -> JoinHandle<Option<Value>> {
    let request = reqwest::Client::new()
        .post(format!("{}/settle", service.url))
        .bearer_auth(&service.api_key)
        .header(WAIT_FOR, depth)
        .json(payment);
    tokio::spawn(async move { request.send().await.ok()?.json().await.ok() })
}

/// A payment whose caller asked for a depth and waits, included in the newest block.
async fn included(
    world: &World,
    service: &Service,
    payment: &Value,
    depth: &'static str,
) -> JoinHandle<Option<Value>> {
    let asked = settle_in_background_at(service, payment, depth);
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until(INCLUDED, 1).await;
    asked
}

/// The follower has looked at the safe head since, and callers were looked after.
async fn until_looked_at(proxy: &Proxy) {
    proxy.until_called("eth_getBlockByNumber", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_waits_as_long_as_it_asked_for() {
    for (depth, n_blocks) in [("safe", 2), ("finalized", 4)] {
        let world = world().await;
        let (proxy, service) = behind_proxy(&world, &[]).await;
        let asked = included(&world, &service, &world.payment(0, 10_000), depth).await;
        world.node.mine(n_blocks - 1).await;
        until_looked_at(&proxy).await;
        assert_eq!(world.count(ANSWERED).await, 0, "{depth}");
        assert!(!asked.is_finished(), "{depth}");
        world.node.mine(1).await;
        assert_all_paid(&answers(vec![asked]).await);
        let status: String = sqlx::query_scalar("select status from settlement")
            .fetch_one(&world.books)
            .await
            .unwrap();
        assert_eq!(status, depth);
        end(world, service, &[&proxy]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_cannot_wait_so_long_is_told_pending_and_then_success() {
    let world = world().await;
    let (proxy, service) = behind_proxy(&world, &[(WAIT_MS, "1000")]).await;
    let payment = world.payment(0, 10_000);
    let asked = included(&world, &service, &payment, "safe").await;
    let pending = asked.await.unwrap().expect("an answer");
    assert_eq!(pending["errorReason"], "settlement_pending", "{pending}");
    assert_ne!(pending["transaction"], "");
    // What was asked for stands, whatever the repetition says.
    let pending = settle(&service, &payment, "included").await.json();
    assert_eq!(pending["errorReason"], "settlement_pending", "{pending}");
    world.node.mine(2).await;
    world.until("select count(*) from settlement where status = 'safe'", 1).await;
    let answer = settle(&service, &payment, "safe").await.json();
    assert_eq!(answer["success"], true, "{answer}");
    let again = settle(&service, &payment, "safe").await.json();
    assert_eq!(again["errorReason"], "duplicate_settlement", "{again}");
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_has_a_depth_of_its_own_which_a_request_overrides() {
    let world = world().await;
    sqlx::query("update merchant set wait_for = 'safe'").execute(&world.books).await.unwrap();
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let quick = included(&world, &service, &world.payment(0, 10_000), "included").await;
    assert_all_paid(&answers(vec![quick]).await);
    let asked = settle_in_background(&service, &world.payment(1, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until(INCLUDED, 2).await;
    until_looked_at(&proxy).await;
    assert!(!asked.is_finished());
    world.node.mine(2).await;
    assert_all_paid(&answers(vec![asked]).await);
    let safe = "select count(*) from settlement where wait_for = 'safe' and status = 'safe'";
    assert_eq!(world.count(safe).await, 1);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_success_is_told_when_included() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked]).await);
    assert_eq!(world.count(INCLUDED).await, 1);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_depth_is_refused_before_anything_is_claimed() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    for depth in ["deep", "", "Safe", "latest", "included,safe"] {
        let answer = settle(&service, &world.payment(0, 10_000), depth).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{depth:?}: {}", answer.body);
        assert!(answer.body.contains("included, safe or finalized"), "{}", answer.body);
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganization_before_the_safe_head_delays_the_answer() {
    let world = world().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let asked = included(&world, &service, &world.payment(0, 10_000), "safe").await;
    // Otherwise what is sent again could stand in the first of the blocks that follow.
    proxy.set("eth_sendRawTransaction", Fault::DropBefore);
    world.node.reorg(1, &[]).await;
    world.until("select count(*) from settlement where status = 'submitted'", 1).await;
    world.node.mine(3).await;
    until_looked_at(&proxy).await;
    assert!(!asked.is_finished(), "told success by a block that is gone");
    proxy.heal();
    for _ in 0..200 {
        if world.count(INCLUDED).await == 1 {
            break;
        }
        world.node.mine(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.node.mine(3).await;
    assert_all_paid(&answers(vec![asked]).await);
    assert_eq!(world.payee_balance().await, 10_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waited_for_safe_is_never_told_a_success_that_a_reorganization_took_back() {
    let world = world().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let authorization = world.authorization(0, 10_000);
    let payment = world.buyer(0).request(&authorization).unwrap();
    let asked = included(&world, &service, &payment, "safe").await;
    // In the blocks that replace ours, the payer has cancelled.
    let chain = &world.services.chain;
    let draft = Draft {
        to: chain.usdc,
        data: cancellation(&world, 0, &authorization).into(),
        gas_limit: 200_000,
        ..Draft::new(world.node.account_nonce(chain.stranger.address).await)
    };
    let cancelled = draft.sign(&chain.stranger, chain.chain_id);
    world.node.reorg(1, &[(cancelled.raw, 0)]).await;
    let told = answers(vec![asked]).await;
    assert_eq!(told[0]["success"], false, "{told:?}");
    assert_eq!(told[0]["errorReason"], "invalid_exact_evm_nonce_already_used", "{told:?}");
    assert_eq!(world.payee_balance().await, 0);
    end(world, service, &[&proxy]).await;
}
