//! Tokens that are not USDC: any merchant can name any contract.

use alloy::primitives::Address;
use quittance::app::dev::{Buyer, Market};
use serde_json::json;

use crate::{
    answers, assert_all_paid, settle_in_background,
    support::{Emits, World, token_that_emits},
};

const PAID: &str = "select count(*) from settlement where status = 'included'";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_halts_stops_nobody_else() {
    let world = World::stepped().await;
    let service = world.service().await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    let usdc = world.services.chain.usdc;
    let code = world.node.call("eth_getCode", json!([usdc, "latest"])).await;
    // INVALID: the EVM halts, and no node calls that a revert.
    world.node.call("anvil_setCode", json!([usdc, "0xfe"])).await;
    world.node.mine(1).await;
    world.node.mine(3).await;
    let head = i64::try_from(world.node.block_number().await).unwrap();
    world.until("select max(number) from chain_head", head).await;
    assert_eq!(world.count("select count(*) from settlement where status = 'failed'").await, 0);

    // Back to work: the halted payment and a new one are both paid.
    world.node.call("anvil_setCode", json!([usdc, code])).await;
    world.node.mine(1).await;
    let second = settle_in_background(&service, &world.payment(1, 10_000));
    world.node.until_pending(2).await;
    world.node.mine(1).await;
    for asked in [asked, second] {
        let answer = asked.await.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{answer}");
    }
    assert_eq!(world.payee_balance().await, 20_000);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_reverts_for_a_block_fails_nothing() {
    let world = World::stepped().await;
    let service = world.service().await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    let usdc = world.services.chain.usdc;
    let code = world.node.call("eth_getCode", json!([usdc, "latest"])).await;
    // PUSH 0, PUSH 0, REVERT: as a proxy does while its implementation is replaced.
    world.node.call("anvil_setCode", json!([usdc, "0x60006000fd"])).await;
    world.node.mine(1).await;
    world.until("select count(*) from event where detail like 'mined without%'", 1).await;
    world.node.call("anvil_setCode", json!([usdc, code])).await;
    world.node.mine(1).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(asked.await.unwrap().expect("an answer")["success"], true);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_that_accepts_every_call_is_no_token() {
    let world = World::automine().await;
    let service = world.service().await;
    // STOP: every call succeeds and does nothing.
    let usdc = world.services.chain.usdc;
    world.node.call("anvil_setCode", json!([usdc, "0x00"])).await;
    let payment = world.payment(0, 10_000);
    for answer in [service.verify(&payment).await, service.settle(&payment).await] {
        let told = answer.to_string();
        assert!(told.contains("invalid_exact_evm_eip3009_not_supported"), "{told}");
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_turns_silent_is_never_told_to_be_paid() {
    let world = World::stepped().await;
    let service = world.service().await;
    let (asset, market) = (Address::repeat_byte(0xa0), world.services.chain.market());
    let buyer = |n: usize| {
        let market = Market { asset, ..market.clone() };
        Buyer::new(&world.services.chain.payers[n], market).unwrap()
    };
    let payment = |n: usize| buyer(n).request(&world.authorization(n, 10_000)).unwrap();
    let sound = token_that_emits(&[Emits::Used, Emits::Transfer]);
    world.node.set_code(asset, &sound).await;
    world.node.mine(1).await;
    let first = settle_in_background(&service, &payment(0));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![first]).await);

    // Found good, it is not tried again: what it does now is seen in the block.
    world.node.set_code(asset, &token_that_emits(&[])).await;
    world.node.mine(1).await;
    let second = settle_in_background(&service, &payment(1));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until("select count(*) from event where detail like 'mined without%'", 1).await;
    let undecided = "select count(*) from settlement where status in ('claimed', 'submitted')";
    assert_eq!(world.count(undecided).await, 1);

    world.node.set_code(asset, &sound).await;
    // It may be on its way again already, or wait for another block to be looked at.
    while world.count(PAID).await < 2 {
        world.node.mine(1).await;
        let head = i64::try_from(world.node.block_number().await).unwrap();
        world.until("select max(number) from chain_head", head).await;
    }
    assert_all_paid(&answers(vec![second]).await);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
