//! A block that proved a payment is replaced by others.

use serde_json::json;

use crate::{
    settle_in_background,
    support::{Service, World},
};

const REVERSED: &str =
    "select count(*) from ledger_entry where subject = 'payment' and kind = 'reverse'";
const INCLUDED: &str = "select count(*) from settlement where status = 'included'";

/// One payment, included in the newest block.
async fn included() -> (World, Service) {
    let world = World::stepped().await;
    let service = world.service().await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    (world, service)
}

async fn end(world: World, service: Service) {
    assert_eq!(world.payee_balance().await, 10_000);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_block_is_gone_is_reversed_sent_again_and_posted_again() {
    let (world, service) = included().await;
    world.node.mine(2).await;
    world.node.reorg(3, &[]).await;
    assert_eq!(world.payee_balance().await, 0);
    world.until(REVERSED, 1).await;
    world.until("select count(*) from settlement where status = 'submitted'", 1).await;
    world.check_books().await;
    // anvil forgets what a reorg drops; the wallet sends the same bytes again.
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until(INCLUDED, 1).await;
    assert_eq!(world.count("select count(*) from attempt").await, 1);
    end(world, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_moves_with_a_transaction_that_stands_in_another_block() {
    let (world, service) = included().await;
    let raw: Vec<u8> =
        sqlx::query_scalar("select raw from attempt").fetch_one(&world.books).await.unwrap();
    world.node.reorg(1, &[(alloy::hex::encode_prefixed(raw), 0)]).await;
    world.until("select count(*) from evidence where orphaned_at is not null", 1).await;
    world.until(INCLUDED, 1).await;
    assert_eq!(world.count(REVERSED).await, 1);
    assert_eq!(
        world
            .count("select count(*) from ledger_entry where subject = 'gas' and kind = 'reverse'")
            .await,
        1
    );
    end(world, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_goes_back_without_another_block_unwinds_nothing() {
    let (world, service) = included().await;
    world.node.mine(3).await;
    let head = world.node.block_number().await;
    world.until("select max(number) from chain_head", i64::try_from(head).unwrap()).await;
    world.node.call("anvil_rollback", json!([2])).await;
    // Two looks at the chain later nothing is unwound: a lagging endpoint looks the same.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(world.count(REVERSED).await, 0);
    world.node.mine(4).await;
    world.until("select max(number) from chain_head", i64::try_from(head + 2).unwrap()).await;
    assert_eq!(world.count(INCLUDED).await, 1);
    end(world, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganization_below_the_first_block_that_was_followed_stops_nothing() {
    let world = World::stepped().await;
    let service = world.service().await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    // The service has applied one block so far, the one it started at. Two are replaced.
    assert_eq!(world.count("select count(*) from chain_block").await, 1);
    world.node.reorg(2, &[]).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    end(world, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_becomes_safe_and_then_final_with_its_block() {
    let world = World::start(quittance::app::dev::ChainRequest {
        slots_in_an_epoch: Some(2),
        ..quittance::app::dev::ChainRequest::default()
    })
    .await;
    let service = world.service().await;
    assert_eq!(service.settle(&world.payment(0, 10_000)).await["success"], true);
    world.node.mine(2).await;
    world.until("select count(*) from settlement where status = 'safe'", 1).await;
    world.node.mine(3).await;
    world.until("select count(*) from settlement where status = 'finalized'", 1).await;
    assert_eq!(world.count("select count(*) from transaction where status = 'finalized'").await, 1);
    end(world, service).await;
}
