//! The price of a block rises above what was offered. Scenarios 12 to 14 of the settlement-engine
//! reference.

use crate::{
    answers, assert_all_paid, behind_proxy, end, newest_attempt, settle_in_background,
    support::{BLOCK_GAS_LIMIT, Dialect, Fault, Proxy, Refusal, Service, World},
    until_sent_again,
};

const SEND: &str = "eth_sendRawTransaction";
const FEE_WEI_MAX: &str = "QUITTANCE__CHAINS__LOCAL__FEE_WEI_MAX";
const ATTEMPTS: &str = "select count(*) from attempt";
/// Forty times what is offered for gas on an idle chain.
const HIGH_BASE_FEE_WEI: u64 = 2_000_000_000;
const BASE_FEE_WEI: u64 = 5_000_000;
/// A market in which half of what is mined gives a priority fee of 0.02 gwei.
const DEAR_MARKET: Fault = Fault::Answer(
    r#"{"oldestBlock":"0x1","baseFeePerGas":["0x4c4b40","0x4c4b40"],"gasUsedRatio":[0.5],
    "reward":[["0x1312d00"]]}"#,
);

/// What each attempt offered, oldest first: for gas, and as priority fee.
async fn offers(world: &World) -> Vec<(u128, u128)> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select fee_wei_max::text, priority_fee_wei_max::text from attempt
         order by transaction_id, sequence",
    )
    .fetch_all(&world.books)
    .await
    .unwrap();
    rows.into_iter().map(|(fee, tip)| (fee.parse().unwrap(), tip.parse().unwrap())).collect()
}

/// Each offer is an eighth above all that came before, in both fields.
fn assert_raised(offers: &[(u128, u128)]) {
    for (n, offer) in offers.iter().enumerate().skip(1) {
        let fee = offers[..n].iter().map(|offer| offer.0).max().unwrap();
        let tip = offers[..n].iter().map(|offer| offer.1).max().unwrap();
        assert!(offer.0 * 8 >= fee * 9 && offer.1 * 8 >= tip * 9, "{offers:?}");
    }
}

/// One payment in the pool, and the market that would have it outbid by its next blocks.
async fn outbid(world: &World, proxy: &Proxy, service: &Service) -> Outbid {
    let asked = settle_in_background(service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.until("select count(*) from attempt where sent_answer is null", 0).await;
    let old = proxy.sent().pop().unwrap();
    proxy.set("eth_feeHistory", DEAR_MARKET);
    let (_, gas_limit) = newest_attempt(world).await;
    // Patience is three blocks.
    for n_attempts in [1, 1, 2] {
        world.leave_no_room_for(gas_limit).await;
        until_sent_again(world, proxy, 1).await;
        assert_eq!(world.count(ATTEMPTS).await, n_attempts);
    }
    Outbid { asked, old }
}

struct Outbid {
    asked: tokio::task::JoinHandle<Option<serde_json::Value>>,
    old: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_fee_above_the_offer_is_met_by_a_stored_better_offer() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.next_base_fee(HIGH_BASE_FEE_WEI).await;
    // The pool evicts what offers less.
    world.node.mine(1).await;
    world.until(ATTEMPTS, 2).await;
    world.node.until_pending(1).await;
    assert_raised(&offers(&world).await);
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked]).await);
    assert_eq!(world.count("select count(*) from transaction").await, 1);
    assert_eq!(world.payee_balance().await, 10_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_the_offer_stands_and_people_are_told() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[(FEE_WEI_MAX, "1000000000")]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.next_base_fee(HIGH_BASE_FEE_WEI).await;
    // The same bytes once more, and the next payment waits too.
    until_sent_again(&world, &proxy, 1).await;
    let second = settle_in_background(&service, &world.payment(1, 10_000));
    world.until("select count(*) from settlement where status = 'claimed'", 1).await;
    proxy.until_called("eth_feeHistory", 2).await;
    assert_eq!(world.count(ATTEMPTS).await, 1);
    let log = service.log();
    assert!(log.contains("a transaction needs a better offer than the limit allows"), "{log}");
    assert!(log.contains("at most 1000000000 wei per gas is offered"), "{log}");
    // Cheap again: the first is good, if a little better than it need be, and the second follows.
    world.node.next_base_fee(BASE_FEE_WEI).await;
    world.node.mine(1).await;
    world.node.until_pending(2).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked, second]).await);
    assert_eq!(world.count("select count(*) from transaction").await, 2);
    assert!(offers(&world).await.iter().all(|(fee, _)| *fee <= 1_000_000_000));
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_replacement_is_followed_by_one_above_all_attempts() {
    for dialect in [Dialect::Anvil, Dialect::Geth, Dialect::Reth] {
        let world = World::stepped().await;
        let (proxy, service) = behind_proxy(&world, &[]).await;
        proxy.speak(dialect);
        let asked = settle_in_background(&service, &world.payment(0, 10_000));
        world.node.until_pending(1).await;
        proxy.set(SEND, Fault::Refuse(Refusal::ReplacementUnderpriced));
        world.node.next_base_fee(HIGH_BASE_FEE_WEI).await;
        world.node.mine(1).await;
        let refused = "select count(*) from attempt where sent_answer = 'replacement underpriced'";
        world.until(refused, 1).await;
        // It is offered for three blocks; then a better one is.
        for n_attempts in [2, 2, 3] {
            until_sent_again(&world, &proxy, 1).await;
            assert_eq!(world.count(ATTEMPTS).await, n_attempts, "{dialect:?}");
        }
        assert_raised(&offers(&world).await);
        proxy.heal();
        world.node.mine(1).await;
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        assert_all_paid(&answers(vec![asked]).await);
        assert_eq!(world.count(ATTEMPTS).await, 3);
        assert_eq!(world.payee_balance().await, 10_000);
        end(world, service, &[&proxy]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_others_outbid_is_replaced_in_the_strictest_pool() {
    for dialect in [Dialect::Geth, Dialect::Reth] {
        let world = World::stepped().await;
        let (proxy, service) = behind_proxy(&world, &[]).await;
        proxy.enforce_replacement();
        proxy.speak(dialect);
        let Outbid { asked, old } = outbid(&world, &proxy, &service).await;
        assert_raised(&offers(&world).await);
        let (bump, _) = newest_attempt(&world).await;
        let accepted = "select count(*) from attempt where sequence = 1
            and sent_answer = 'accepted'";
        world.until(accepted, 1).await;
        let wallet = world.services.chain.wallet.address;
        let pool = world.node.pool(wallet).await;
        assert_eq!(pool.into_values().collect::<Vec<_>>(), [bump], "{dialect:?}");
        assert_ne!(proxy.sent().pop().unwrap(), old);
        world.node.set_block_gas_limit(BLOCK_GAS_LIMIT).await;
        world.node.mine(1).await;
        let told = answers(vec![asked]).await;
        assert_all_paid(&told);
        assert_eq!(told[0]["transaction"], bump.to_string());
        end(world, service, &[&proxy]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_attempt_may_be_mined_after_all() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let Outbid { asked, old } = outbid(&world, &proxy, &service).await;
    let accepted = "select count(*) from attempt where sequence = 1 and sent_answer = 'accepted'";
    world.until(accepted, 1).await;
    world.node.set_block_gas_limit(BLOCK_GAS_LIMIT).await;
    world.node.mine(1).await;
    let (bump, _) = newest_attempt(&world).await;
    assert_eq!(answers(vec![asked]).await[0]["transaction"], bump.to_string());
    // Another block holds the first attempt in its place.
    world.node.reorg(1, &[(old, 0)]).await;
    let moved = "select count(*) from settlement join transaction on mined_hash = transaction_hash
        join attempt using (transaction_hash) where settlement.status = 'included' and sequence = 0";
    world.until(moved, 1).await;
    for (kind, n) in [("post", 2), ("reverse", 1)] {
        let posted: i64 = sqlx::query_scalar(
            "select count(*) from ledger_entry where subject = 'payment' and kind = $1",
        )
        .bind(kind)
        .fetch_one(&world.books)
        .await
        .unwrap();
        assert_eq!(posted, n, "{kind}");
    }
    assert_eq!(world.payee_balance().await, 10_000);
    end(world, service, &[&proxy]).await;
}
