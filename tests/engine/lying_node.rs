//! The node answers, and what it answers is late, empty or wrong.

use std::time::Duration;

use quittance::domain::Amount;
use serde_json::json;

use crate::{
    answers, assert_all_paid, behind_proxy, end, newest_attempt, settle_in_background,
    support::{Fault, Proxy, Service, World, now},
};

const RPC_URL: &str = "QUITTANCE__CHAINS__LOCAL__RPC_URL";
const WAIT_MS: &str = "QUITTANCE__SETTLE__WAIT_MS";
const FAILED: &str = "select count(*) from settlement where status = 'failed'";

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_logs_are_missing_from_the_index_is_seen_in_its_receipt() {
    let world = World::stepped().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    proxy.set("eth_getLogs", Fault::Answer("[]"));
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_node_does_not_fail_what_newer_blocks_can_pay() {
    let world = World::stepped().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let settings = [(RPC_URL, &*proxy.url), (WAIT_MS, "500")];
    let service = world.service_with(&settings).await;
    // The payer is funded after this block.
    let old = world.node.call("eth_getBlockByNumber", json!(["latest", false])).await;
    let chain = &world.services.chain;
    world.node.mine(1).await;
    world.node.call("anvil_dealERC20", json!([chain.pauper.address, chain.usdc, "0xf4240"])).await;
    world.node.mine(2).await;
    let price = Amount::parse("10000").unwrap();
    let pauper = world.pauper();
    let payment = pauper.request(&pauper.authorization(chain.payee.address, price, now())).unwrap();
    // Nothing can be signed, so the claim grows old and is looked into again.
    proxy.set("eth_feeHistory", Fault::DropBefore);
    assert_eq!(service.post("/settle", &payment).await.status, 503);
    proxy.set("eth_getBlockByNumber", Fault::Answer(Box::leak(old.to_string().into_boxed_str())));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.count(FAILED).await, 0, "{}", service.log());
    proxy.heal();
    // The claim was left alone for a while; then it is sent.
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_a_block_that_is_not_canonical_proves_nothing() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    let (hash, _) = newest_attempt(&world).await;
    // The node keeps telling of the block that held the payment, and the chain has another one.
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked]).await);
    let stale = world.node.receipt(hash).await.unwrap().to_string();
    proxy.set("eth_getTransactionReceipt", Fault::Answer(Box::leak(stale.into_boxed_str())));
    let raw = proxy.sent().pop().unwrap();
    world.node.reorg(1, &[(raw, 0)]).await;
    world.until("select count(*) from settlement where status = 'submitted'", 1).await;
    for _ in 0..1_000 {
        if service.log().contains("whose receipt is of") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(service.log().contains("whose receipt is of"), "{}", service.log());
    assert_eq!(world.count("select count(*) from settlement where status = 'submitted'").await, 1);
    // No receipt at all is no proof either.
    proxy.set("eth_getTransactionReceipt", Fault::Answer("null"));
    proxy.until_called("eth_getTransactionReceipt", 2).await;
    assert_eq!(world.count("select count(*) from settlement where status = 'submitted'").await, 1);
    assert_eq!(world.count(FAILED).await, 0);
    proxy.heal();
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    assert_eq!(world.count("select count(*) from attempt").await, 1);
    assert_eq!(world.payee_balance().await, 10_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mad_fee_answer_costs_at_most_the_limit() {
    let world = World::automine().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    // A tenth of a coin per gas as the median priority fee.
    let mad = r#"{"oldestBlock":"0x1","baseFeePerGas":["0x4c4b40","0x4c4b40"],"gasUsedRatio":[0.5],
        "reward":[["0x16345785d8a0000"]]}"#;
    proxy.set("eth_feeHistory", Fault::Answer(mad));
    assert_eq!(service.settle(&world.payment(0, 10_000)).await["success"], true);
    let offered: String = sqlx::query_scalar("select priority_fee_wei_max::text from attempt")
        .fetch_one(&world.books)
        .await
        .unwrap();
    assert_eq!(offered, "2000000000");
    // A base fee above the limit: nothing is stored, and what waits is sent when it falls.
    let high = r#"{"oldestBlock":"0x1","baseFeePerGas":["0x174876e800","0x174876e800"],
        "gasUsedRatio":[0.5],"reward":[["0x1"]]}"#;
    proxy.set("eth_feeHistory", Fault::Answer(high));
    let asked = settle_in_background(&service, &world.payment(1, 10_000));
    world.until("select count(*) from settlement where status = 'claimed'", 1).await;
    for _ in 0..200 {
        if service.log().contains("the base fee is 100000000000 wei") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(service.log().contains("the base fee is 100000000000 wei"), "{}", service.log());
    assert_eq!(world.count("select count(*) from attempt").await, 1);
    proxy.heal();
    assert_eq!(asked.await.unwrap().expect("an answer")["success"], true);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn books_of_a_longer_chain_are_told_and_not_called_ready() {
    let world = World::automine().await;
    sqlx::query("insert into chain_head (chain_id, number, hash) values ($1, 40000000, $2)")
        .bind(world.services.chain.chain_id.to_string())
        .bind(vec![7_u8; 32])
        .execute(&world.books)
        .await
        .unwrap();
    let service = Service::spawn(&world, &[]).await;
    let told = async {
        loop {
            let answer = service.operations("/readyz").await;
            assert_eq!(answer.status, 503, "{}", answer.body);
            if answer.body.contains("behind block 40000000") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
    service.stop().await;
    world.stop().await;
}
