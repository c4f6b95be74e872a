//! The head goes back, or an endpoint is behind the other. Scenario 20 of the settlement-engine
//! reference.

use crate::{
    RPC_URL, answers, assert_all_paid, behind_proxy, end, settle_in_background,
    support::{Fault, World},
};

const HEAD: &str = "eth_getBlockByNumber";
const REVERSED: &str =
    "select count(*) from ledger_entry where subject = 'payment' and kind = 'reverse'";
const INCLUDED: &str = "select count(*) from settlement where status = 'included'";

/// Nothing was taken back.
async fn assert_nothing_unwound(world: &World, log: &str) {
    assert_eq!(world.count(REVERSED).await, 0);
    assert_eq!(world.count("select count(*) from evidence where orphaned_at is not null").await, 0);
    assert!(!log.contains("a reorganization removed blocks"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_two_blocks_lower_is_waited_for_with_a_payment_open() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let first = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![first]).await);
    world.node.mine(2).await;
    let head = i64::try_from(world.node.block_number().await).unwrap();
    world.until("select max(number) from chain_head", head).await;
    let second = settle_in_background(&service, &world.payment(1, 10_000));
    world.node.until_pending(1).await;
    world.node.rollback(2).await;
    proxy.until_called(HEAD, 6).await;
    assert_nothing_unwound(&world, &service.log()).await;
    assert_eq!(world.count("select max(number) from chain_head").await, head);
    // Other blocks in their place are a reorganization, of blocks that held nothing of ours.
    world.node.mine(3).await;
    world.until("select max(number) from chain_head", head + 1).await;
    world.node.until_pending(0).await;
    world.until(INCLUDED, 2).await;
    assert_all_paid(&answers(vec![second]).await);
    assert_eq!(world.count(REVERSED).await, 0);
    assert_eq!(world.payee_balance().await, 20_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_endpoints_behind_unwinds_nothing_and_stops_nothing() {
    let world = World::stepped().await;
    let (first, second) = (world.proxy(), world.proxy());
    let urls = format!("{},{}", first.url, second.url);
    let service = world.service_with(&[(RPC_URL, &urls)]).await;
    let mut told = Vec::new();
    // Each in turn is so far behind that it does not know the newest evidence.
    for (n, lagging) in [&first, &second, &first].into_iter().enumerate() {
        let asked = settle_in_background(&service, &world.payment(2 * n, 1_000));
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        told.extend(answers(vec![asked]).await);
        lagging.set_all(Fault::Stale(2));
        let asked = settle_in_background(&service, &world.payment(2 * n + 1, 1_000));
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        lagging.until_called(HEAD, 1).await;
        // So small a lag is no reason to leave an endpoint: its callers wait two blocks longer.
        world.node.mine(2).await;
        told.extend(answers(vec![asked]).await);
        assert_nothing_unwound(&world, &service.log()).await;
        lagging.heal();
    }
    assert_all_paid(&told);
    assert_eq!(world.payee_balance().await, 6_000);
    end(world, service, &[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_only_endpoint_that_falls_behind_fails_nothing_and_catches_up() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let first = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![first]).await);
    let second = settle_in_background(&service, &world.payment(1, 10_000));
    world.node.until_pending(1).await;
    proxy.set_all(Fault::Stale(3));
    world.node.mine(1).await;
    proxy.until_called(HEAD, 6).await;
    assert_nothing_unwound(&world, &service.log()).await;
    assert_eq!(world.count("select count(*) from settlement where status = 'failed'").await, 0);
    proxy.heal();
    assert_all_paid(&answers(vec![second]).await);
    assert_eq!(world.payee_balance().await, 20_000);
    end(world, service, &[&proxy]).await;
}
