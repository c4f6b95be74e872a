//! A block that proved a payment is replaced by others.

use quittance::chain::transfer_calldata;
use serde_json::json;

use crate::{
    N_IN_FLIGHT_MAX, answers, assert_all_paid, behind_proxy,
    front_run::signature_in,
    in_one_transaction, settle_in_background,
    support::{Draft, Service, World},
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

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_transaction_pays_in_the_place_of_ours() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let authorization = world.authorization(0, 10_000);
    let payment = world.buyer(0).request(&authorization).unwrap();
    let asked = settle_in_background(&service, &payment);
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    let told = answers(vec![asked]).await;
    assert_all_paid(&told);
    let chain = &world.services.chain;
    let draft = Draft {
        to: chain.usdc,
        data: transfer_calldata(&authorization, &signature_in(&payment)),
        gas_limit: 200_000,
        ..Draft::new(world.node.account_nonce(chain.stranger.address).await)
    };
    let theirs = draft.sign(&chain.stranger, chain.chain_id);
    assert_ne!(told[0]["transaction"], theirs.hash.to_string());
    world.node.reorg(1, &[(theirs.raw, 0)]).await;
    world.until("select count(*) from evidence where not by_us and orphaned_at is null", 1).await;
    world.until(INCLUDED, 1).await;
    assert_eq!(world.count(REVERSED).await, 1);
    let hash: Vec<u8> = sqlx::query_scalar("select transaction_hash from settlement")
        .fetch_one(&world.books)
        .await
        .unwrap();
    assert_eq!(hash, theirs.hash.to_vec());
    // Ours is sent again, reverts, and is paid for once: the block that it was in first is gone.
    world.node.mine(1).await;
    world.until("select count(*) from transaction where status = 'mined'", 1).await;
    for (kind, n) in [("post", 2), ("reverse", 1)] {
        let of_gas: i64 = sqlx::query_scalar(
            "select count(*) from ledger_entry where subject = 'gas' and kind = $1",
        )
        .bind(kind)
        .fetch_one(&world.books)
        .await
        .unwrap();
        assert_eq!(of_gas, n, "{kind}");
    }
    assert_eq!(world.count("select count(*) from attempt").await, 1);
    world.check_sent(&[&proxy]).await;
    end(world, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_depth_from_one_to_five_is_unwound_and_mined_again() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked]).await);
    for depth in 1..=5_u64 {
        world.node.mine(depth - 1).await;
        let head = i64::try_from(world.node.block_number().await).unwrap();
        world.until("select max(number) from chain_head", head).await;
        world.node.reorg(depth, &[]).await;
        let n = i64::try_from(depth).unwrap();
        world.until(REVERSED, n).await;
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        world.until(INCLUDED, 1).await;
        assert_eq!(world.count("select count(*) from attempt").await, 1, "depth {depth}");
    }
    world.check_sent(&[&proxy]).await;
    end(world, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_and_the_settler_that_carried_it_come_back_together() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "2")]).await;
    let mut told = Vec::new();
    // Two payments in flight, three that wait, and again: the first batch deploys the settler, and
    // the second goes through it.
    for _ in 0..2 {
        let mut asked = Vec::new();
        for n in 1..=2 {
            asked.push(settle_in_background(&service, &world.payment(0, 1_000)));
            world.node.until_pending(n).await;
        }
        asked.extend((1..4).map(|n| settle_in_background(&service, &world.payment(n, 1_000))));
        world.until("select count(*) from settlement where status = 'claimed'", 3).await;
        world.node.mine(1).await;
        world.until("select count(*) from settlement where status = 'claimed'", 0).await;
        world.until("select count(*) from attempt where sent_answer is null", 0).await;
        world.node.mine(1).await;
        told.extend(answers(asked).await);
    }
    assert_all_paid(&told);
    // All four blocks are replaced: the settler has no code any more.
    world.node.reorg(4, &[]).await;
    world.until(REVERSED, 10).await;
    assert_eq!(world.payee_balance().await, 0);
    world.check_books().await;
    world.node.until_pending(7).await;
    world.node.mine(1).await;
    world.until(INCLUDED, 10).await;
    assert_eq!(world.count("select count(*) from transaction where status = 'mined'").await, 7);
    assert_eq!(world.count("select count(*) from attempt").await, 7);
    world.check_sent(&[&proxy]).await;
    end(world, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_evidence_of_a_batch_moves_as_one() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "1")]).await;
    let payments: Vec<_> = (1..8).map(|n| world.payment(n, 1_427)).collect();
    let asked = in_one_transaction(&world, &service, &payments).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(asked).await);
    let raw = proxy.sent().pop().unwrap();
    // Of two new blocks the second holds it.
    world.node.mine(1).await;
    world.node.reorg(2, &[(raw, 1)]).await;
    world.until("select count(*) from evidence where orphaned_at is not null", 7).await;
    world.until(INCLUDED, 8).await;
    assert_eq!(world.count(REVERSED).await, 7);
    let blocks = "select count(distinct block_hash) from evidence where orphaned_at is null";
    assert_eq!(world.count(blocks).await, 2);
    assert_eq!(world.payee_balance().await, 9_990);
    world.check_books().await;
    world.check_sent(&[&proxy]).await;
    service.stop().await;
    world.stop().await;
}
