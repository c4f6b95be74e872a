//! A pool forgets what it took, restarts empty, or keeps it for long. Scenarios 9 to 11 of the
//! settlement-engine reference.

use std::collections::BTreeMap;

use alloy::primitives::B256;

use crate::{
    N_IN_FLIGHT_MAX, N_TOGETHER_MAX, answers, assert_all_paid, behind_proxy, end,
    settle_in_background,
    support::{BLOCK_GAS_LIMIT, Service, World},
    until_sent_again,
};

/// One payment a transaction, so that several are open at once.
const APART: (&str, &str) = (N_TOGETHER_MAX, "1");
const OPEN: &str = "select count(*) from transaction where status = 'open'";
const ATTEMPTS: &str = "select count(*) from attempt";

/// Payments that are all in the pool, each in its transaction.
async fn in_the_pool(
    world: &World,
    service: &Service,
    n: usize,
) -> (Vec<tokio::task::JoinHandle<Option<serde_json::Value>>>, BTreeMap<u64, B256>) {
    let asked = (0..n).map(|n| settle_in_background(service, &world.payment(n, 1_000))).collect();
    world.node.until_pending(u64::try_from(n).unwrap()).await;
    let unanswered = "select count(*) from attempt where sent_answer is null";
    world.until(unanswered, 0).await;
    (asked, world.node.pool(world.services.chain.wallet.address).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pool_drops_in_the_middle_is_back_after_one_block() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[APART]).await;
    let (asked, pool) = in_the_pool(&world, &service, 4).await;
    let dropped = *pool.values().nth(1).unwrap();
    world.node.drop_transaction(dropped).await;
    // The first is mined; the others wait behind the gap until it is filled.
    world.node.mine(1).await;
    world.until(OPEN, 3).await;
    world.node.until_pending(3).await;
    let wallet = world.services.chain.wallet.address;
    assert_eq!(world.node.pool(wallet).await.into_values().next(), Some(dropped));
    world.node.mine(1).await;
    assert_all_paid(&answers(asked).await);
    assert_eq!(world.count(ATTEMPTS).await, 4);
    assert_eq!(world.payee_balance().await, 4_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_with_an_empty_pool_is_sent_everything_open() {
    let mut world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[APART]).await;
    let (asked, pool) = in_the_pool(&world, &service, 5).await;
    world.restart_node().await;
    proxy.retarget(world.node.url());
    assert_eq!(world.node.n_pending().await, 0);
    // It takes no gaps, so they can only come in the order of their nonces.
    proxy.enforce_order();
    world.node.mine(1).await;
    world.node.until_pending(5).await;
    let wallet = world.services.chain.wallet.address;
    assert_eq!(world.node.pool(wallet).await, pool, "other bytes were sent");
    world.node.mine(1).await;
    assert_all_paid(&answers(asked).await);
    assert_eq!(world.count(ATTEMPTS).await, 5);
    assert_eq!(world.payee_balance().await, 5_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_full_pool_is_neither_outbid_nor_joined_beyond_the_limit() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[APART, (N_IN_FLIGHT_MAX, "3")]).await;
    let (mut asked, pool) = in_the_pool(&world, &service, 3).await;
    asked.extend((3..7).map(|n| settle_in_background(&service, &world.payment(n, 1_000))));
    world.until("select count(*) from settlement where status = 'claimed'", 4).await;
    world.node.set_block_gas_limit(30_000).await;
    for _ in 0..6 {
        // Each block has all that is open sent once more.
        until_sent_again(&world, &proxy, 3).await;
    }
    let wallet = world.services.chain.wallet.address;
    assert_eq!(world.node.pool(wallet).await, pool);
    assert_eq!((world.count(OPEN).await, world.count(ATTEMPTS).await), (3, 3));
    world.node.set_block_gas_limit(BLOCK_GAS_LIMIT).await;
    for (n_pending, n_mined) in [(3, 3), (3, 6), (1, 7)] {
        world.node.until_pending(n_pending).await;
        world.node.mine(1).await;
        world.until("select count(*) from transaction where status = 'mined'", n_mined).await;
    }
    assert_all_paid(&answers(asked).await);
    assert_eq!(world.count(ATTEMPTS).await, 7);
    assert_eq!(world.payee_balance().await, 7_000);
    end(world, service, &[&proxy]).await;
}
