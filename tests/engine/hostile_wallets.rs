//! Wallets and factories that turn against us: those that burn gas, answer with a flood, or lie to the
//! simulation. What they cost is bounded, and their neighbours are verified and paid.

use alloy::primitives::{Address, U256};
use futures_util::future::join_all;
use quittance::verify::Factories;
use serde_json::Value;

use crate::{
    DEPLOY_SETTLER, N_IN_FLIGHT_MAX, answers, assert_all_paid, behind_proxy, end,
    in_one_transaction, settle_in_background,
    support::{World, create_account},
};

const FACTORIES: [Address; 5] = Factories::DEFAULT;
/// Tells a test's hostile payments from the others.
const HOSTILE_AMOUNT: u64 = 7_777;
const PAID: &str = "select count(*) from settlement where status = 'included'";
const OPEN: &str = "select count(*) from transaction where status = 'open'";
const UNANSWERED: &str = "select count(*) from attempt where sent_answer is null";
const TIME_OVER: &str = "select count(*) from settlement where status = 'failed'
    and failure_reason = 'invalid_exact_evm_payload_authorization_valid_before'";
/// How often hostile payments were carried alone.
const N_ALONE: &str = "select coalesce(sum(n_alone), 0)::bigint from settlement
    where amount = 7777";
/// What was spent on transactions that carried one payment of a payer with code.
const SPENT_ALONE: &str = "select coalesce(sum(gas_used), 0)::bigint from transaction
    where purpose = 'retry' and (select count(*) from transaction_item
    where transaction_item.transaction_id = transaction.transaction_id) = 1";
/// The most that one of those took.
const SPENT_AT_ONCE: &str = "select coalesce(max(gas_used), 0)::bigint from transaction
    where purpose = 'retry' and (select count(*) from transaction_item
    where transaction_item.transaction_id = transaction.transaction_id) = 1";
/// What the transaction took that carried the most payments.
const SPENT_TOGETHER: &str = "select gas_used from transaction join transaction_item
    using (transaction_id) group by transaction_id, gas_used order by count(*) desc limit 1";

fn wallet(n: u8) -> Address {
    Address::repeat_byte(0xa0 + n)
}

/// What a wallet turns into: the contract, and its slot 0.
const HOSTILE_CODES: [(&str, u64); 5] =
    [("GasBurner", 0), ("BombWallet", 0), ("BombWallet", 1), ("LiarWallet", 0), ("LiarWallet", 1)];

/// Mines until so many transactions have carried hostile payments alone, and none is open.
async fn mine_until_alone(world: &World, n_alone: i64) {
    while world.count(N_ALONE).await < n_alone || world.count(OPEN).await > 0 {
        world.node.until_pending(1).await;
        world.until(UNANSWERED, 0).await;
        world.node.mine(1).await;
        let head = i64::try_from(world.node.block_number().await).unwrap();
        world.until("select max(number) from chain_head", head).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_list_with_hostile_payers_is_verified_all_the_same() {
    let world = World::stepped().await;
    for n in 0..4 {
        world.place_wallet(wallet(n), usize::from(n)).await;
    }
    world.place(FACTORIES[0], "SmartWalletFactory", U256::ZERO).await;
    let mut honest: Vec<Value> = (0..14).map(|n| world.payment(n % 8, 1_000)).collect();
    for n in 0..4 {
        honest.push(world.payment_of(wallet(n), usize::from(n), 1_000));
    }
    for salt in 0..2 {
        world.give(world.address_by(FACTORIES[0], 0, salt).await, 1_000).await;
        honest.push(world.counterfactual(FACTORIES[0], 0, salt, 1_000).await);
    }
    // A wallet that answers with an acceptance and 200 KB costs a lot of gas, and pays.
    let (refused, fails) =
        ("invalid_exact_evm_signature", "invalid_exact_evm_transaction_simulation_failed");
    let reasons = [Some(refused), None, Some(refused), None, None];
    let mut hostile = Vec::new();
    for ((n, (code, word)), reason) in (8..).zip(HOSTILE_CODES).zip(reasons) {
        world.place(wallet(n), code, U256::from(word)).await;
        world.give(wallet(n), 1_000).await;
        hostile.push((world.payment_of(wallet(n), 0, 1_000), reason));
    }
    for (factory, way) in FACTORIES[1..4].iter().zip(0_u64..) {
        world.place(*factory, "HostileFactory", U256::from(way)).await;
        world.give(world.address_by(*factory, 0, 1).await, 1_000).await;
        hostile.push((world.counterfactual(*factory, 0, 1, 1_000).await, Some(fails)));
    }
    let (proxy, service) = behind_proxy(&world, &[]).await;
    assert_eq!(service.verify(&world.payment(0, 1)).await["isValid"], true);
    let n_calls = proxy.n_calls("eth_call");
    let (asked_of_honest, asked_of_hostile) = (
        join_all(honest.iter().map(|payment| service.verify(payment))),
        join_all(hostile.iter().map(|(payment, _)| service.verify(payment))),
    );
    let (of_hostile, of_honest) =
        futures_util::future::join(asked_of_hostile, asked_of_honest).await;
    for verdict in of_honest {
        assert_eq!(verdict["isValid"], true, "{verdict}");
    }
    for (n, (verdict, (_, reason))) in of_hostile.iter().zip(&hostile).enumerate() {
        assert_eq!(verdict["invalidReason"].as_str(), *reason, "{n}: {verdict}");
    }
    // They did share lists.
    let n_calls = proxy.n_calls("eth_call") - n_calls;
    assert!(n_calls <= 14, "{n_calls} calls for 28 payments");
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wallets_that_turn_hostile_cost_their_caps_and_their_neighbours_are_paid_at_once() {
    let world = World::stepped().await;
    world.deploy_settler().await;
    let (proxy, service) = behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "1")]).await;
    for n in 0..8 {
        world.place_wallet(wallet(n), usize::from(n)).await;
    }
    let payments: Vec<Value> = (0..8)
        .map(|n| match n {
            0 | 3 | 7 => world.payment_of(wallet(n), usize::from(n), 1_000),
            _ => world.payment_of(wallet(n), usize::from(n), HOSTILE_AMOUNT),
        })
        .collect();
    let mut asked = in_one_transaction(&world, &service, &payments).await;
    for (n, (code, word)) in [1, 2, 4, 5, 6].into_iter().zip(HOSTILE_CODES) {
        world.place(wallet(n), code, U256::from(word)).await;
    }
    world.node.mine(1).await;
    let honest: Vec<_> = [7, 3, 0].into_iter().map(|n| asked.remove(n)).collect();
    assert_all_paid(&answers(honest).await);
    // The opener, and all three in the very same block.
    assert_eq!(world.count(PAID).await, 4);
    let cap =
        world.count("select max(simulated_gas + simulated_gas / 4) + 30000 from settlement").await;
    assert!(cap <= 160_000, "{cap}");
    let together = world.count(SPENT_TOGETHER).await;
    assert!(together <= 3 * 120_000 + 5 * cap + 60_000, "{together}");
    // The one that floods and both that lie pass every trial, so they are believed three times more
    // each, alone; the others fail the next look, and are not sent again.
    mine_until_alone(&world, 9).await;
    let at_once = world.count(SPENT_AT_ONCE).await;
    assert!(at_once <= cap + 21_000 + 15_000, "{at_once} of {cap}");
    let alone = world.count(SPENT_ALONE).await;
    // Nobody is tried a tenth time.
    let fence = settle_in_background(&service, &world.payment(0, 1_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![fence]).await);
    world.node.increase_time(3_600).await;
    world.node.mine(1).await;
    for answer in answers(asked).await {
        assert_eq!(
            answer["errorReason"], "invalid_exact_evm_payload_authorization_valid_before",
            "{answer}"
        );
    }
    assert_eq!((world.count(TIME_OVER).await, world.count(N_ALONE).await), (5, 9));
    assert_eq!(world.count(SPENT_ALONE).await, alone);
    assert_eq!(world.payee_balance().await, 4_001);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn factories_that_turn_hostile_cost_their_caps_and_their_neighbours_are_paid_at_once() {
    let world = World::stepped().await;
    world.deploy_settler().await;
    let (proxy, service) = behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "1")]).await;
    world.place_wallet(wallet(0), 0).await;
    let mut payments = vec![world.payment_of(wallet(0), 0, 1_000)];
    for (n, factory) in FACTORIES[..4].iter().enumerate() {
        world.place(*factory, "SmartWalletFactory", U256::ZERO).await;
        world.give(world.address_by(*factory, n, 1).await, 10_000).await;
        let amount = if n == 3 { 1_000 } else { HOSTILE_AMOUNT };
        payments.push(world.counterfactual(*factory, n, 1, amount).await);
    }
    let mut asked = in_one_transaction(&world, &service, &payments).await;
    for (factory, way) in FACTORIES[..3].iter().zip(0_u64..) {
        world.place(*factory, "HostileFactory", U256::from(way)).await;
    }
    world.node.mine(1).await;
    let honest: Vec<_> = [4, 0].into_iter().map(|n| asked.remove(n)).collect();
    assert_all_paid(&answers(honest).await);
    assert_eq!(world.count(PAID).await, 3);
    // Each of them may burn the cap of the factory's call and that of the payment's.
    let cap =
        world.count("select max(simulated_gas + simulated_gas / 4) + 30000 from settlement").await;
    assert!(cap <= 700_000, "{cap}");
    let together = world.count(SPENT_TOGETHER).await;
    assert!(together <= 120_000 + 500_000 + 3 * 2 * cap + 100_000, "{together} with {cap}");
    // They fail the next look: nothing more is sent.
    world.node.increase_time(3_600).await;
    world.node.mine(1).await;
    for answer in answers(asked).await {
        assert_eq!(
            answer["errorReason"], "invalid_exact_evm_payload_authorization_valid_before",
            "{answer}"
        );
    }
    assert_eq!((world.count(SPENT_ALONE).await, world.count(OPEN).await), (0, 0));
    assert_eq!(world.payee_balance().await, 2_001);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_somebody_else_deploys_first_pays_all_the_same() {
    let world = World::stepped().await;
    world.deploy_settler().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let (factory, owner) = (FACTORIES[0], world.services.chain.payers[0].address);
    world.place(factory, "SmartWalletFactory", U256::ZERO).await;
    // Between verification and claim, and ahead of us in the same block.
    for (salt, is_mined_before) in [(1, true), (2, false)] {
        world.give(world.address_by(factory, 0, salt).await, 10_000).await;
        let payment = world.counterfactual(factory, 0, salt, 1_000).await;
        assert_eq!(service.verify(&payment).await["isValid"], true);
        let deploy = async || {
            world.stranger_calls(factory, create_account(owner, salt).into(), 1_000_000).await;
        };
        if is_mined_before {
            deploy().await;
            world.node.mine(1).await;
        }
        let asked = settle_in_background(&service, &payment);
        world.node.until_pending(1).await;
        if !is_mined_before {
            deploy().await;
        }
        world.node.mine(1).await;
        assert_all_paid(&answers(vec![asked]).await);
    }
    assert_eq!(world.count("select count(*) from evidence where by_us").await, 2);
    assert_eq!(world.payee_balance().await, 2_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_settler_payers_with_code_go_alone_and_hold_up_nobody() {
    let world = World::stepped().await;
    let settings = [(DEPLOY_SETTLER, "false"), (N_IN_FLIGHT_MAX, "8")];
    let (proxy, service) = behind_proxy(&world, &settings).await;
    let mut asked = Vec::new();
    for n in 0..4 {
        world.place_wallet(wallet(n), usize::from(n)).await;
        asked.push(settle_in_background(
            &service,
            &world.payment_of(wallet(n), usize::from(n), 1_000),
        ));
    }
    world.until("select count(*) from settlement", 4).await;
    // A quarter of the places is theirs.
    world.node.until_pending(2).await;
    for n in 0..3 {
        asked.push(settle_in_background(&service, &world.payment(n, 1_000)));
    }
    world
        .until(
            "select count(*) from settlement where payer_kind = 'key' and status = 'submitted'",
            3,
        )
        .await;
    assert_eq!(
        world
            .count(
                "select count(*) from transaction_item join settlement
        using (settlement_id) where payer_kind = 'contract'"
            )
            .await,
        2
    );
    // Stored comes before sent.
    world.until(UNANSWERED, 0).await;
    world.node.mine(1).await;
    world.until(PAID, 5).await;
    world.node.until_pending(2).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(asked).await);
    let shared = "select count(*) from (select transaction_id from transaction_item
        join settlement using (settlement_id) group by transaction_id
        having count(*) > 1 and bool_or(payer_kind <> 'key')) as shared";
    assert_eq!(world.count(shared).await, 0);
    assert_eq!(world.payee_balance().await, 7_000);
    end(world, service, &[&proxy]).await;
}
