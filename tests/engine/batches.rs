//! Payments share transactions when they have to wait, and not otherwise.

use alloy::{
    consensus::{Transaction as _, TxEnvelope},
    eips::eip2718::Decodable2718 as _,
    primitives::{Address, address},
};
use serde_json::json;

use crate::{
    DEPLOY_SETTLER, N_IN_FLIGHT_MAX, N_TOGETHER_MAX, answers, assert_all_paid, behind_proxy, end,
    in_one_transaction, newest_attempt, settle_in_background,
    support::{Service, World},
};

const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
/// contracts/README.md.
const SETTLER: Address = address!("dDb810Be1B0aEE8fA25f1e605e195A4E041F7258");
const DEPLOYER: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");
const CLAIMED: &str = "select count(*) from settlement where status = 'claimed'";
const RETRYING: &str =
    "select count(*) from transaction where status = 'open' and purpose = 'retry'";
/// EIP-7825, and go-ethereum's `txMaxSize`.
const GAS_LIMIT_MAX: u64 = 16_777_216;
const N_BYTES_MAX: usize = 128 * 1_024;

/// What each transaction was for, whom it called, and how many payments it carried, oldest first.
async fn transactions(world: &World) -> Vec<(String, Address, i64)> {
    let rows: Vec<(String, Vec<u8>, i64)> = sqlx::query_as(
        "select purpose, raw, (select count(*) from transaction_item
            where transaction_item.transaction_id = transaction.transaction_id)
         from transaction join attempt using (transaction_id) where sequence = 0
         order by transaction_id",
    )
    .fetch_all(&world.books)
    .await
    .unwrap();
    let to = |raw: &[u8]| TxEnvelope::decode_2718(&mut &*raw).unwrap().to().unwrap();
    rows.into_iter().map(|(purpose, raw, n)| (purpose, to(&raw), n)).collect()
}

fn told(purpose: &str, to: Address, n: i64) -> (String, Address, i64) {
    (purpose.to_owned(), to, n)
}

/// Asks for `n` payments, and waits until all of them wait for a place.
async fn gather(
    world: &World,
    service: &Service,
    n: usize,
) -> Vec<tokio::task::JoinHandle<Option<serde_json::Value>>> {
    let asked: Vec<_> =
        (0..n).map(|n| settle_in_background(service, &world.payment(n % 8, 1_000))).collect();
    world.until(CLAIMED, i64::try_from(n).unwrap()).await;
    asked
}

/// Pays one at a time until every place is taken.
async fn take_places(
    world: &World,
    service: &Service,
    n: u64,
) -> Vec<tokio::task::JoinHandle<Option<serde_json::Value>>> {
    let mut asked = Vec::new();
    for n in 1..=n {
        asked.push(settle_in_background(service, &world.payment(0, 1_000)));
        world.node.until_pending(n).await;
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_batch_deploys_the_settler_and_the_second_uses_it() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "2")]).await;
    let usdc = world.services.chain.usdc;
    let mut asked = take_places(&world, &service, 2).await;
    asked.extend(gather(&world, &service, 7).await);
    world.node.mine(1).await;
    world.node.until_pending(2).await;
    let alone = || told("pay", usdc, 1);
    let deployed = told("deploy", DEPLOYER, 0);
    let by_multicall = told("pay", MULTICALL3, 7);
    let first = [alone(), alone(), deployed, by_multicall];
    assert_eq!(transactions(&world).await, first);
    asked.extend(gather(&world, &service, 5).await);
    world.node.mine(1).await;
    world.node.until_pending(1).await;
    assert_eq!(transactions(&world).await[4..], [told("pay", SETTLER, 5)]);
    world.node.mine(1).await;
    assert_all_paid(&answers(asked).await);
    // One that nobody waits with goes straight to the token.
    let last = take_places(&world, &service, 1).await;
    assert_eq!(transactions(&world).await[5..], [alone()]);
    world.node.mine(1).await;
    assert_all_paid(&answers(last).await);
    assert_eq!(world.payee_balance().await, 15_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leave_to_deploy_batches_go_through_multicall3() {
    let world = World::stepped().await;
    let settings = [(DEPLOY_SETTLER, "false"), (N_IN_FLIGHT_MAX, "2"), (N_TOGETHER_MAX, "5")];
    let (proxy, service) = behind_proxy(&world, &settings).await;
    let usdc = world.services.chain.usdc;
    let mut asked = take_places(&world, &service, 2).await;
    asked.extend(gather(&world, &service, 12).await);
    // Two places, five payments each; the last two wait on.
    world.node.mine(1).await;
    world.node.until_pending(2).await;
    world.until(CLAIMED, 2).await;
    world.node.mine(1).await;
    world.node.until_pending(1).await;
    let by_multicall = |n| told("pay", MULTICALL3, n);
    let alone = || told("pay", usdc, 1);
    let all = [alone(), alone(), by_multicall(5), by_multicall(5), by_multicall(2)];
    assert_eq!(transactions(&world).await, all);
    world.node.mine(1).await;
    assert_all_paid(&answers(asked).await);
    assert_eq!(world.payee_balance().await, 14_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_batch_is_within_what_chain_and_pools_allow() {
    for deploys in ["true", "false"] {
        let world = World::stepped().await;
        if deploys == "true" {
            world.deploy_settler().await;
        }
        let settings = [(DEPLOY_SETTLER, deploys), (N_IN_FLIGHT_MAX, "1")];
        let (proxy, service) = behind_proxy(&world, &settings).await;
        proxy.enforce_size();
        let payments: Vec<_> = (0..100).map(|n| world.payment(n % 8, 1_000)).collect();
        let asked = in_one_transaction(&world, &service, &payments).await;
        let (_, gas_limit) = newest_attempt(&world).await;
        assert!(gas_limit <= GAS_LIMIT_MAX, "{gas_limit}");
        let n_bytes = proxy.sent().pop().unwrap().len() / 2 - 1;
        assert!(n_bytes <= N_BYTES_MAX, "{n_bytes}");
        world.node.mine(1).await;
        assert_all_paid(&answers(asked).await);
        assert_eq!(world.payee_balance().await, 100_001);
        let per_item =
            "select (gas_used / 100)::bigint from transaction order by gas_used desc limit 1";
        let per_item = world.count(per_item).await;
        assert!(per_item <= 57_000, "{per_item} gas an item");
        end(world, service, &[&proxy]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_unpaid_takes_a_quarter_of_the_places_at_most() {
    let world = World::stepped().await;
    let (proxy, service) =
        behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "8"), (N_TOGETHER_MAX, "1")]).await;
    let usdc = world.services.chain.usdc;
    let asked = take_places(&world, &service, 6).await;
    // The token reverts for one block, and everything comes back.
    let code = world.node.call("eth_getCode", json!([usdc, "latest"])).await;
    world.node.call("anvil_setCode", json!([usdc, "0x60006000fd"])).await;
    world.node.mine(1).await;
    world.until("select count(*) from event where detail like 'mined without%'", 6).await;
    world.node.call("anvil_setCode", json!([usdc, code])).await;
    world.node.until_pending(2).await;
    let fresh: Vec<_> =
        (1..4).map(|n| settle_in_background(&service, &world.payment(n, 1_000))).collect();
    // Places are left for them, while four wait that were there before.
    world.node.until_pending(5).await;
    assert_eq!(world.count(RETRYING).await, 2);
    let mut n_blocks = 0;
    while world.count("select count(*) from settlement where status <> 'included'").await > 0 {
        world.until("select count(*) from attempt where sent_answer is null", 0).await;
        assert!(world.count(RETRYING).await <= 2);
        if world.node.n_pending().await > 0 {
            world.node.mine(1).await;
            n_blocks += 1;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(n_blocks <= 8, "{n_blocks}");
    assert_all_paid(&answers(asked).await);
    assert_all_paid(&answers(fresh).await);
    assert_eq!(world.payee_balance().await, 9_000);
    assert!(transactions(&world).await.iter().all(|(_, to, n)| (*to, *n) == (usdc, 1)));
    end(world, service, &[&proxy]).await;
}
