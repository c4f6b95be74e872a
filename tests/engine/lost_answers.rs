//! What becomes of sent bytes is not told, or told wrongly: the answer is lost, late, an error, or
//! there are several. Scenarios 5 to 8 of the settlement-engine reference.

use serde_json::Value;

use crate::{
    RPC_URL, answers, assert_all_paid, behind_proxy, end, settle_in_background,
    support::{BLOCK_GAS_LIMIT, Dialect, Fault, Proxy, Refusal, Trouble, World},
    until_sent_again,
};

const SEND: &str = "eth_sendRawTransaction";
const RPC_TIMEOUT_MS: &str = "QUITTANCE__CHAINS__LOCAL__RPC_TIMEOUT_MS";
const ANSWERED: &str = "select count(*) from attempt where sent_answer is not null";
const FAILED: &str = "select count(*) from event where status_to = 'failed'";
const REQUEUED: &str =
    "select count(*) from event where status_from = 'submitted' and status_to = 'claimed'";

/// Every payment had one transaction with one attempt, was submitted once, and was paid.
async fn assert_one_attempt_each(world: &World, answers: &[Value], proxies: &[&Proxy]) {
    assert_all_paid(answers);
    let n = i64::try_from(answers.len()).unwrap();
    assert_eq!(world.count("select count(*) from transaction").await, n);
    assert_eq!(world.count("select count(*) from attempt").await, n);
    assert_eq!((world.count(FAILED).await, world.count(REQUEUED).await), (0, 0));
    assert_eq!(world.payee_balance().await, 1_000 * u64::try_from(n).unwrap());
    let mut sent: Vec<String> = proxies.iter().flat_map(|proxy| proxy.sent()).collect();
    sent.sort();
    sent.dedup();
    assert_eq!(i64::try_from(sent.len()).unwrap(), n, "other bytes were sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_took_the_bytes_may_answer_anything() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let mut told = Vec::new();
    for (n, fault) in (0..).zip([
        Fault::DropAfterForward,
        Fault::ErrorAfterForward(Trouble::BadGateway),
        Fault::ErrorAfterForward(Trouble::TooManyRequests),
        Fault::ErrorAfterForward(Trouble::Garbage),
        Fault::ErrorAfterForward(Trouble::Refused(Refusal::PoolFull)),
        Fault::ErrorAfterForward(Trouble::Refused(Refusal::NonceTooLow)),
        Fault::Duplicate(3),
    ]) {
        proxy.set(SEND, fault);
        let asked = settle_in_background(&service, &world.payment(n, 1_000));
        world.node.until_pending(1).await;
        world.until(ANSWERED, i64::try_from(n).unwrap() + 1).await;
        // A block passes it by, so the same bytes are sent again, with the same trouble.
        let n_sent = proxy.sent().len();
        world.node.set_block_gas_limit(30_000).await;
        until_sent_again(&world, &proxy, 1).await;
        assert!(proxy.sent()[n_sent - 1..].iter().all(|raw| *raw == proxy.sent()[n_sent - 1]));
        let submitted = "select count(*) from settlement where status = 'submitted'";
        assert_eq!(world.count(submitted).await, 1, "{fault:?}");
        world.node.set_block_gas_limit(BLOCK_GAS_LIMIT).await;
        world.node.mine(1).await;
        told.extend(answers(vec![asked]).await);
        proxy.heal();
    }
    assert!(proxy.log().iter().any(|sent| sent.n_forwarded == 3), "nothing was delivered thrice");
    assert_one_attempt_each(&world, &told, &[&proxy]).await;
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_the_bytes_already_says_so_in_every_dialect() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let mut told = Vec::new();
    for (n, dialect) in [Dialect::Anvil, Dialect::Geth, Dialect::Reth].into_iter().enumerate() {
        proxy.speak(dialect);
        proxy.set(SEND, Fault::Duplicate(3));
        let asked = settle_in_background(&service, &world.payment(n, 1_000));
        let known = "select count(*) from attempt where sent_answer = 'already known'";
        world.until(known, i64::try_from(n).unwrap() + 1).await;
        world.node.mine(1).await;
        told.extend(answers(vec![asked]).await);
    }
    assert_one_attempt_each(&world, &told, &[&proxy]).await;
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_vanish_are_sent_again_and_stay_the_same() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[(RPC_TIMEOUT_MS, "300")]).await;
    proxy.set(SEND, Fault::BlackHole);
    let asked = settle_in_background(&service, &world.payment(0, 1_000));
    world.until(ANSWERED, 1).await;
    assert_eq!(world.node.n_pending().await, 0);
    for _ in 0..2 {
        until_sent_again(&world, &proxy, 1).await;
    }
    assert_eq!(world.count("select count(*) from settlement where status = 'submitted'").await, 1);
    proxy.heal();
    world.node.mine(1).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    let told = answers(vec![asked]).await;
    assert_one_attempt_each(&world, &told, &[&proxy]).await;
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_endpoint_swallows_goes_by_the_other_with_the_same_hash() {
    let world = World::stepped().await;
    let (first, second) = (world.proxy(), world.proxy());
    let urls = format!("{},{}", first.url, second.url);
    let service = world.service_with(&[(RPC_URL, &urls), (RPC_TIMEOUT_MS, "1000")]).await;
    let mut told = Vec::new();
    for (n, (swallows, other)) in [(&first, &second), (&second, &first)].into_iter().enumerate() {
        swallows.set(SEND, Fault::BlackHole);
        let asked = settle_in_background(&service, &world.payment(n, 1_000));
        world.node.until_pending(1).await;
        assert_eq!(other.log().last().unwrap().n_forwarded, 1);
        world.node.mine(1).await;
        told.extend(answers(vec![asked]).await);
        swallows.heal();
    }
    assert_one_attempt_each(&world, &told, &[&first, &second]).await;
    end(world, service, &[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_still_and_goes_on_has_paid_once() {
    let mut world = World::stepped().await;
    world.restart_node().await;
    let (proxy, service) = behind_proxy(&world, &[(RPC_TIMEOUT_MS, "300")]).await;
    let asked = settle_in_background(&service, &world.payment(0, 1_000));
    world.node.until_pending(1).await;
    world.until(ANSWERED, 1).await;
    // It is stopped with the bytes in its pool; other bytes reach its socket while it stands.
    let second = world.payment(1, 1_000);
    proxy.set(SEND, Fault::DropBefore);
    let also = settle_in_background(&service, &second);
    world.until(ANSWERED, 2).await;
    world.pause_node().await;
    proxy.heal();
    proxy.until_called("eth_getBlockByNumber", 3).await;
    assert_eq!(world.count("select count(*) from settlement where status = 'submitted'").await, 2);
    world.resume_node().await;
    world.node.mine(1).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    let told = answers(vec![asked, also]).await;
    assert_one_attempt_each(&world, &told, &[&proxy]).await;
    end(world, service, &[&proxy]).await;
}
