//! A transaction that waits in the pool has nobody left to pay: its nonce is used up for the price
//! of a plain transaction. While one of its payments lives, it is left alone.

use alloy::primitives::Bytes;
use quittance::chain::transfer_calldata;
use serde_json::Value;

use crate::{
    N_IN_FLIGHT_MAX, answers, assert_all_paid, behind_proxy, end,
    front_run::signature_in,
    in_one_transaction, newest_attempt, settle_in_background,
    support::{BLOCK_GAS_LIMIT, Proxy, Service, Signed, World},
    until_sent_again,
};

const CANCELS: &str = "select count(*) from attempt where kind = 'cancel'";
const ACCEPTED_CANCELS: &str =
    "select count(*) from attempt where kind = 'cancel' and sent_answer = 'accepted'";
const MINED_CANCELS: &str = "select count(*) from transaction join attempt
    on attempt.transaction_hash = mined_hash where kind = 'cancel'";
/// A transfer of USDC under a limit that leaves no room for one of ours.
const TRANSFER_GAS: u64 = 150_000;

/// A payment of the n-th buyer, and what anybody can send to pay it.
fn payment_and_call(world: &World, n: usize) -> (Value, Bytes) {
    let authorization = world.authorization(n, 10_000);
    let payment = world.buyer(n).request(&authorization).unwrap();
    let call = transfer_calldata(&authorization, &signature_in(&payment));
    (payment, call)
}

/// Has a stranger pay with `call`, in a block that has no room for what we have open.
async fn pay_before_us(world: &World, proxy: &Proxy, call: Bytes) -> Signed {
    let (_, gas_limit) = newest_attempt(world).await;
    world.node.set_block_gas_limit(gas_limit + 10_000).await;
    let theirs = world.stranger_calls(world.services.chain.usdc, call, TRANSFER_GAS).await;
    until_sent_again(world, proxy, 1).await;
    assert!(world.node.receipt(theirs.hash).await.is_some());
    theirs
}

/// Blocks without room for what we have open, each noticed.
async fn pass_by(world: &World, proxy: &Proxy, gas_limit: u64, n_blocks: u64) {
    for _ in 0..n_blocks {
        world.leave_no_room_for(gas_limit).await;
        until_sent_again(world, proxy, 1).await;
    }
}

/// The next payment goes its usual way.
async fn pay_once_more(world: &World, service: &Service) {
    let asked = settle_in_background(service, &world.payment(3, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked]).await);
}

/// The cancellation offers an eighth more than what it replaces, in both fields, for little gas.
async fn assert_cheap_and_better(world: &World) {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select fee_wei_max::text, priority_fee_wei_max::text, gas_limit from attempt
         where transaction_id = (select transaction_id from attempt where kind = 'cancel' limit 1)
         order by sequence",
    )
    .fetch_all(&world.books)
    .await
    .unwrap();
    let wei = |text: &str| text.parse::<u128>().unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(wei(&rows[1].0) * 8 >= wei(&rows[0].0) * 9, "{rows:?}");
    assert!(wei(&rows[1].1) * 8 >= wei(&rows[0].1) * 9, "{rows:?}");
    assert_eq!(rows[1].2, 21_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_paid_is_cancelled_after_some_blocks() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    proxy.enforce_replacement();
    let (payment, call) = payment_and_call(&world, 0);
    let asked = settle_in_background(&service, &payment);
    world.node.until_pending(1).await;
    let (_, gas_limit) = newest_attempt(&world).await;
    let theirs = pay_before_us(&world, &proxy, call).await;
    let told = answers(vec![asked]).await;
    assert_all_paid(&told);
    assert_eq!(told[0]["transaction"], theirs.hash.to_string());
    // It was passed by once; the third time is one too many.
    pass_by(&world, &proxy, gas_limit, 1).await;
    assert_eq!(world.count(CANCELS).await, 0);
    pass_by(&world, &proxy, gas_limit, 1).await;
    world.until(ACCEPTED_CANCELS, 1).await;
    assert_cheap_and_better(&world).await;
    world.node.set_block_gas_limit(BLOCK_GAS_LIMIT).await;
    world.node.mine(1).await;
    world.until(MINED_CANCELS, 1).await;
    pay_once_more(&world, &service).await;
    assert_eq!(world.payee_balance().await, 20_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_in_the_pool_is_cancelled_after_some_blocks() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    let (_, gas_limit) = newest_attempt(&world).await;
    world.node.increase_time(3_600).await;
    pass_by(&world, &proxy, gas_limit, 1).await;
    let told = answers(vec![asked]).await;
    assert_eq!(told[0]["success"], false, "{told:?}");
    pass_by(&world, &proxy, gas_limit, 2).await;
    world.until(ACCEPTED_CANCELS, 1).await;
    assert_cheap_and_better(&world).await;
    world.node.set_block_gas_limit(BLOCK_GAS_LIMIT).await;
    world.node.mine(1).await;
    world.until(MINED_CANCELS, 1).await;
    assert_eq!(world.payee_balance().await, 0);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_one_living_payment_is_not_cancelled() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "1")]).await;
    let (dead, call) = payment_and_call(&world, 1);
    let living = world.payment(2, 10_000);
    let asked = in_one_transaction(&world, &service, &[dead, living]).await;
    let (_, gas_limit) = newest_attempt(&world).await;
    pay_before_us(&world, &proxy, call).await;
    pass_by(&world, &proxy, gas_limit, 5).await;
    assert_eq!(world.count(CANCELS).await, 0);
    world.node.set_block_gas_limit(BLOCK_GAS_LIMIT).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(asked).await);
    assert_eq!(world.payee_balance().await, 20_001);
    // Strangers outbid it, so a better offer was made for the same call.
    assert_eq!(
        (world.count(CANCELS).await, world.count("select count(*) from transaction").await),
        (0, 2)
    );
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_comes_back_to_life_after_its_cancellation_is_paid() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let (payment, call) = payment_and_call(&world, 0);
    let asked = settle_in_background(&service, &payment);
    world.node.until_pending(1).await;
    let (_, gas_limit) = newest_attempt(&world).await;
    pay_before_us(&world, &proxy, call).await;
    assert_all_paid(&answers(vec![asked]).await);
    pass_by(&world, &proxy, gas_limit, 2).await;
    world.until(ACCEPTED_CANCELS, 1).await;
    // The blocks that held the stranger's payment are replaced by others that do not.
    world.node.set_block_gas_limit(BLOCK_GAS_LIMIT).await;
    world.node.reorg(3, &[]).await;
    world
        .until(
            "select count(*) from ledger_entry where kind = 'reverse' and subject = 'payment'",
            1,
        )
        .await;
    assert_eq!(world.payee_balance().await, 0);
    world.node.mine(1).await;
    // Whatever the pool kept of it, the payment is made in the end, by another transaction if the
    // cancellation was mined.
    for _ in 0..3 {
        world.until("select count(*) from attempt where sent_answer is null", 0).await;
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        if world.payee_balance().await > 0 {
            break;
        }
    }
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    assert_eq!(world.payee_balance().await, 10_000);
    end(world, service, &[&proxy]).await;
}
