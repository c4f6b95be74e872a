//! Time and money run out while a payment waits.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol,
    sol_types::SolCall as _,
};
use serde_json::json;

use crate::{
    settle_in_background,
    support::{Fault, Proxy, World},
};

sol! {
    /// ERC-20.
    function transfer(address to, uint256 value) returns (bool);
}

const FAILED: &str = "select count(*) from settlement where status = 'failed'";

#[tokio::test(flavor = "multi_thread")]
async fn a_sent_payment_that_expires_fails_by_the_blocks_time() {
    let world = World::stepped().await;
    let service = world.service().await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.increase_time(3_600).await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], false, "{answer}");
    assert_eq!(answer["errorReason"], "invalid_exact_evm_payload_authorization_valid_before");
    assert_ne!(answer["transaction"], "", "the transaction that reverted is named: {answer}");
    world.until("select count(*) from transaction where status = 'mined'", 1).await;
    assert_eq!(world.payee_balance().await, 0);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_payment_that_was_never_sent_fails_when_it_expires() {
    let world = World::stepped().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    // Without fee facts nothing can be signed.
    proxy.set("eth_feeHistory", Fault::DropBefore);
    let service = world
        .service_with(&[
            ("QUITTANCE__CHAINS__LOCAL__RPC_URL", &proxy.url),
            ("QUITTANCE__SETTLE__WAIT_MS", "500"),
        ])
        .await;
    let payment = world.payment(0, 10_000);
    let answer = service.post("/settle", &payment).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.json()["errorReason"], "unexpected_settle_error");
    world.node.increase_time(3_600).await;
    world.node.mine(1).await;
    world.until(FAILED, 1).await;
    let answer = service.settle(&payment).await;
    assert_eq!(
        answer["errorReason"],
        json!("invalid_exact_evm_payload_authorization_valid_before"),
        "{answer}"
    );
    assert_eq!(world.count("select count(*) from attempt").await, 0);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_claims_that_expire_at_once_fail_once_each_whoever_looks() {
    let world = World::stepped().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    proxy.set("eth_feeHistory", Fault::DropBefore);
    let settings =
        [("QUITTANCE__CHAINS__LOCAL__RPC_URL", &*proxy.url), ("QUITTANCE__SETTLE__WAIT_MS", "300")];
    // Two wallets' loops and two followers look at the same claims.
    let (service, other) =
        (world.service_with(&settings).await, world.service_with(&settings).await);
    for n in 0..24 {
        assert_eq!(service.post("/settle", &world.payment(n % 8, 1_000)).await.status, 503);
    }
    world.node.increase_time(3_600).await;
    world.node.mine(1).await;
    world.until(FAILED, 24).await;
    assert_eq!(world.count("select count(*) from ledger_entry where kind = 'void'").await, 24);
    assert_eq!(world.count("select count(*) from event where status_to = 'failed'").await, 24);
    world.check_books().await;
    service.stop().await;
    other.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_whose_money_is_gone_when_the_block_is_built_fails_with_that_reason() {
    let world = World::stepped().await;
    let service = world.service().await;
    // All that the payer has is on its way elsewhere, and everybody who looks still sees it.
    let chain = &world.services.chain;
    let payer = chain.payers[0].address;
    let all = world.node.token_balance(chain.usdc, payer).await;
    let elsewhere = transferCall { to: Address::repeat_byte(0xe5), value: U256::from(all) };
    world.node.set_balance(payer, 1_000_000_000_000_000_000).await;
    world.node.call("anvil_impersonateAccount", json!([payer])).await;
    let spending = json!({
        "from": payer, "to": chain.usdc, "data": Bytes::from(elsewhere.abi_encode()),
        "gas": "0x30d40", "maxFeePerGas": "0x174876e800", "maxPriorityFeePerGas": "0x174876e800",
    });
    world.node.call("eth_sendTransaction", json!([spending])).await;
    let asked = settle_in_background(&service, &world.payment(0, all));
    world.node.until_pending(2).await;
    world.node.mine(1).await;
    let told = asked.await.unwrap().unwrap();
    assert_eq!(told["errorReason"], "invalid_exact_evm_insufficient_balance", "{told}");
    assert_eq!(world.payee_balance().await, 0);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
