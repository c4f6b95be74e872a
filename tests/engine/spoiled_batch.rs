//! One payment of ten in a transaction goes wrong, in every way in which one alone can: the other
//! nine are paid in the same block, and the one gets the outcome that it would have had alone.
//! Scenarios 21 to 24 of the settlement-engine reference.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol,
    sol_types::SolCall as _,
};
use quittance::{chain::transfer_calldata, domain::Authorization};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    N_IN_FLIGHT_MAX, answers, assert_all_paid, behind_proxy, end,
    front_run::{cancellation, signature_in},
    in_one_transaction,
    support::{Proxy, Service, World, now},
};

sol! {
    function pauser() returns (address);
    function pause();
    function unpause();
    function blacklister() returns (address);
    function blacklist(address account);
    function unBlacklist(address account);
}

/// The buyer whose payment goes wrong, and where it is among the ten.
const SPOILT: usize = 7;
const PLACE: usize = 3;
const TRANSFER_GAS: u64 = 200_000;
const INCLUDED: &str = "select count(*) from settlement where status = 'included'";

struct Spoiled {
    world: World,
    proxy: Proxy,
    service: Service,
    authorization: Authorization,
    payment: Value,
    asked: Vec<JoinHandle<Option<Value>>>,
}

/// Ten payments in one transaction that waits in the pool; one is to go wrong.
async fn ten(valid_for: u64) -> Spoiled {
    let world = World::stepped().await;
    world.deploy_settler().await;
    let (proxy, service) = behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "1")]).await;
    let mut authorization = world.authorization(SPOILT, 10_000);
    authorization.valid_before = now().as_u256() + U256::from(valid_for);
    let payment = world.buyer(SPOILT).request(&authorization).unwrap();
    let payments: Vec<_> = (0..10)
        .map(|n| match n {
            PLACE => payment.clone(),
            n => world.payment(n % SPOILT, 1_000),
        })
        .collect();
    let asked = in_one_transaction(&world, &service, &payments).await;
    Spoiled { world, proxy, service, authorization, payment, asked }
}

/// As somebody with a right, first in the next block.
async fn as_whoever(world: &World, who: Vec<u8>, call: Vec<u8>) {
    let usdc = world.services.chain.usdc;
    let ask = json!([{ "to": usdc, "data": Bytes::from(who) }, "latest"]);
    let answer: Bytes = world.node.call("eth_call", ask).await.as_str().unwrap().parse().unwrap();
    let who = Address::from_word(answer[..].try_into().unwrap());
    world.node.set_balance(who, 10_u128.pow(20)).await;
    world.node.call("anvil_impersonateAccount", json!([who])).await;
    let transaction = json!([{ "from": who, "to": usdc, "data": Bytes::from(call), "gas": "0x30d40",
        "maxFeePerGas": "0x3b9aca00", "maxPriorityFeePerGas": "0x5f5e100" }]);
    world.node.call("eth_sendTransaction", transaction).await;
}

impl Spoiled {
    /// Mines the batch: nine are paid by it, for little more than nine payments' gas. Returns the
    /// caller of the tenth.
    async fn mine(&mut self) -> JoinHandle<Option<Value>> {
        self.world.node.mine(1).await;
        let spoilt = self.asked.remove(PLACE);
        let told = answers(std::mem::take(&mut self.asked)).await;
        assert_all_paid(&told);
        let batch = &told[0]["transaction"];
        assert!(told.iter().all(|answer| answer["transaction"] == *batch), "{told:#?}");
        // A dead item costs less than a payment.
        let used = "select max(gas_used) from transaction where status = 'mined'";
        let used = self.world.count(used).await;
        assert!(used <= 10 * 60_000 + 60_000, "{used}");
        spoilt
    }

    async fn end(self, payee_balance: u64) {
        assert_eq!(self.world.payee_balance().await, payee_balance);
        end(self.world, self.service, &[&self.proxy]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_stranger_paid_first_is_a_success_with_the_strangers_hash() {
    let mut ten = ten(300).await;
    let call = transfer_calldata(&ten.authorization, &signature_in(&ten.payment));
    let usdc = ten.world.services.chain.usdc;
    let theirs = ten.world.stranger_calls(usdc, call, TRANSFER_GAS).await;
    let spoilt = ten.mine().await;
    let told = answers(vec![spoilt]).await;
    assert_all_paid(&told);
    assert_eq!(told[0]["transaction"], theirs.hash.to_string());
    ten.end(19_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_its_payer_cancelled_has_failed() {
    let mut ten = ten(300).await;
    let call = cancellation(&ten.world, SPOILT, &ten.authorization);
    let usdc = ten.world.services.chain.usdc;
    ten.world.stranger_calls(usdc, call.into(), TRANSFER_GAS).await;
    let spoilt = ten.mine().await;
    let told = answers(vec![spoilt]).await;
    assert_eq!(told[0]["errorReason"], "invalid_exact_evm_nonce_already_used", "{told:?}");
    ten.end(9_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_time_is_over_has_failed() {
    let mut ten = ten(60).await;
    ten.world.node.set_time((now().as_u256() + U256::from(61)).to()).await;
    let spoilt = ten.mine().await;
    let told = answers(vec![spoilt]).await;
    let expired = "invalid_exact_evm_payload_authorization_valid_before";
    assert_eq!(told[0]["errorReason"], expired, "{told:?}");
    ten.end(9_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_payer_has_no_money_left_has_failed() {
    let mut ten = ten(300).await;
    let chain = &ten.world.services.chain;
    let drained = json!([chain.payers[SPOILT].address, chain.usdc, "0x0"]);
    ten.world.node.call("anvil_dealERC20", drained).await;
    let spoilt = ten.mine().await;
    let told = answers(vec![spoilt]).await;
    assert_eq!(told[0]["errorReason"], "invalid_exact_evm_insufficient_balance", "{told:?}");
    ten.end(9_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_payer_is_blacklisted_is_paid_if_that_passes() {
    for passes in [true, false] {
        let mut ten = ten(300).await;
        let account = ten.world.services.chain.payers[SPOILT].address;
        let blacklister = || blacklisterCall {}.abi_encode();
        let listed = blacklistCall { account }.abi_encode();
        as_whoever(&ten.world, blacklister(), listed).await;
        let spoilt = ten.mine().await;
        // It is left alone, unsigned for, and not failed: a list can be mended.
        ten.world.until("select count(*) from settlement where not_before > created_at", 1).await;
        assert_eq!(ten.world.count("select count(*) from transaction").await, 2);
        let told = if passes {
            as_whoever(&ten.world, blacklister(), unBlacklistCall { account }.abi_encode()).await;
            ten.world.node.mine(1).await;
            ten.world.node.until_pending(1).await;
            ten.world.node.mine(1).await;
            spoilt.await.unwrap().expect("an answer")
        } else {
            ten.world.node.increase_time(3_600).await;
            ten.world.node.mine(1).await;
            spoilt.await.unwrap().expect("an answer")
        };
        assert_eq!(told["success"], passes, "{told}");
        ten.end(if passes { 19_001 } else { 9_001 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_pauses_leaves_all_ten_for_later() {
    let ten = ten(300).await;
    let Spoiled { world, proxy, service, asked, .. } = ten;
    let pauser = || pauserCall {}.abi_encode();
    as_whoever(&world, pauser(), pauseCall {}.abi_encode()).await;
    world.node.mine(1).await;
    world.until("select count(*) from event where detail like 'mined without%'", 10).await;
    assert_eq!(world.count("select count(*) from settlement where status = 'failed'").await, 0);
    as_whoever(&world, pauser(), unpauseCall {}.abi_encode()).await;
    world.node.mine(1).await;
    // Each travels alone from now on, through the only place there is.
    for n_paid in 2..=11 {
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        world.until(INCLUDED, n_paid).await;
    }
    assert_all_paid(&answers(asked).await);
    assert_eq!(world.payee_balance().await, 19_001);
    end(world, service, &[&proxy]).await;
}
