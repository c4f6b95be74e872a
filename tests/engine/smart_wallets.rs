//! The payer has code, or will have by the time it pays: contract wallets (ERC-1271), delegated
//! accounts (EIP-7702), and wallets that a factory deploys with their first payment (ERC-6492).

use alloy::{
    hex,
    primitives::{Address, B256, U256, keccak256},
};
use quittance::verify::Factories;
use serde_json::{Value, json};

use crate::{
    DEPLOY_SETTLER, behind_proxy, end, settle_in_background,
    support::{
        Service, World, code_of, create_account, in_wrapper, of_key_zero, signature_of, signed_by,
    },
};

/// Wallets that are placed here.
const WALLET: Address = Address::repeat_byte(0xa1);
/// What accounts delegate to.
const DELEGATE: Address = Address::repeat_byte(0xde);
/// A factory that is called for payers.
const FACTORY: Address = Factories::DEFAULT[0];
/// One that nobody heard of.
const UNKNOWN_FACTORY: Address = Address::repeat_byte(0xfa);
const BAD_SIGNATURE: &str = "invalid_exact_evm_signature";
const N_SETTLEMENTS: &str = "select count(*) from settlement";
const N_TRANSACTIONS: &str = "select count(*) from transaction where purpose <> 'deploy'";
const BY_CONTRACT: &str = "select count(*) from settlement where status = 'included'
    and payer_kind = 'contract'";
const BY_FACTORY: &str = "select count(*) from settlement where status = 'included'
    and payer_kind = 'counterfactual'";
/// Proven by a transaction of ours, and posted.
const PROVEN: &str = "select count(*) from settlement join evidence using (settlement_id)
    join ledger_entry using (settlement_id)
    where by_us and orphaned_at is null and subject = 'payment' and kind = 'post'";

async fn assert_refused(service: &Service, payment: &Value, reason: &str) {
    let verdict = service.verify(payment).await;
    assert_eq!(verdict["isValid"], false, "{verdict}");
    assert_eq!(verdict["invalidReason"], reason, "{verdict}");
    let answer = service.settle(payment).await;
    assert_eq!(answer["success"], false, "{answer}");
    assert_eq!(answer["errorReason"], reason, "{answer}");
}

/// `/verify` says yes; then the payment is settled, and paid with the next block.
async fn assert_paid(world: &World, service: &Service, payment: &Value) -> B256 {
    let verdict = service.verify(payment).await;
    assert_eq!(verdict["isValid"], true, "{verdict}");
    let asked = settle_in_background(service, payment);
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}\n{}", service.log());
    answer["transaction"].as_str().unwrap().parse().unwrap()
}

/// The token said so in that transaction.
async fn assert_logged(world: &World, hash: B256, payment: &Value) {
    let receipt = world.node.receipt(hash).await.unwrap();
    let nonce = &payment["paymentPayload"]["payload"]["authorization"]["nonce"];
    let used = hex::encode_prefixed(keccak256("AuthorizationUsed(address,bytes32)"));
    let is_it = |log: &&Value| log["topics"][0] == used && log["topics"][2] == *nonce;
    let n_logs = receipt["logs"].as_array().unwrap().iter().filter(is_it).count();
    assert_eq!(n_logs, 1, "{receipt}");
}

async fn has_code(world: &World, address: Address) -> bool {
    world.node.call("eth_getCode", json!([address, "latest"])).await != "0x"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_wallet_pays_by_any_signature_that_it_accepts() {
    let world = World::stepped().await;
    world.place_wallet(WALLET, 0).await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let plain = world.payment_of(WALLET, 0, 1_000);
    let long = world.payment_of(WALLET, 0, 2_000);
    let long = signed_by(&long, &of_key_zero(&signature_of(&long)));
    for payment in [&plain, &long] {
        let hash = assert_paid(&world, &service, payment).await;
        assert_logged(&world, hash, payment).await;
    }
    assert_eq!((world.count(BY_CONTRACT).await, world.count(PROVEN).await), (2, 2));
    // Straight to the token, as every lone payment of a deployed wallet.
    assert_eq!(world.count(N_TRANSACTIONS).await, 2);

    // Another key, a spoilt signature, and forms that the wallet makes no sense of.
    let other = world.payment_of(WALLET, 1, 1_000);
    let sound = world.payment_of(WALLET, 0, 1_000);
    let signature = signature_of(&sound);
    let spoilt = [&signature[..64], &[signature[64] ^ 3]].concat();
    let mut longer = of_key_zero(&signature);
    longer[95] ^= 1;
    for payment in [
        other.clone(),
        signed_by(&other, &of_key_zero(&signature_of(&other))),
        signed_by(&sound, &spoilt),
        signed_by(&sound, &longer),
        signed_by(&sound, &signature[..64]),
        signed_by(&sound, &[1]),
    ] {
        assert_refused(&service, &payment, BAD_SIGNATURE).await;
    }
    assert_eq!(world.count(N_SETTLEMENTS).await, 2);
    assert_eq!(world.payee_balance().await, 3_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_account_is_judged_by_its_delegate_and_never_by_its_key() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let account = world.services.chain.payers[3].address;
    let (own, others) = (|amount| world.payment(3, amount), |n| world.payment_of(account, n, 1));
    world.node.set_code(DELEGATE, &code_of("SmartWallet")).await;
    // While it delegates to nobody, its key pays, and nobody else's does.
    assert_refused(&service, &others(4), BAD_SIGNATURE).await;
    assert_paid(&world, &service, &own(1_000)).await;
    world.delegate(account, Some(DELEGATE)).await;
    // The delegate takes the account's own key for the owner, unless slot 0 says otherwise.
    assert_paid(&world, &service, &own(2_000)).await;
    world.set_word(account, world.owner_word(4)).await;
    assert_refused(&service, &own(1_000), BAD_SIGNATURE).await;
    assert_paid(&world, &service, &others(4)).await;
    // A delegate that is not there accepts nothing.
    world.delegate(account, Some(Address::repeat_byte(0xdd))).await;
    assert_refused(&service, &own(1_000), BAD_SIGNATURE).await;
    world.delegate(account, None).await;
    assert_paid(&world, &service, &own(4_000)).await;
    assert_eq!((world.count(BY_CONTRACT).await, world.count(PROVEN).await), (2, 4));
    assert_eq!(world.payee_balance().await, 7_001);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_is_not_there_is_deployed_and_pays_in_one_transaction() {
    for deploys_settler in ["true", "false"] {
        let world = World::stepped().await;
        if deploys_settler == "true" {
            world.deploy_settler().await;
        }
        world.place(FACTORY, "SmartWalletFactory", U256::ZERO).await;
        let settings = [(DEPLOY_SETTLER, deploys_settler)];
        let (proxy, service) = behind_proxy(&world, &settings).await;
        let wallet = world.address_by(FACTORY, 0, 7).await;
        world.give(wallet, 10_000).await;
        let first = world.counterfactual(FACTORY, 0, 7, 1_000).await;
        assert!(!has_code(&world, wallet).await);
        let hash = assert_paid(&world, &service, &first).await;
        assert_logged(&world, hash, &first).await;
        assert!(has_code(&world, wallet).await);
        assert_eq!((world.count(BY_FACTORY).await, world.count(PROVEN).await), (1, 1));
        assert_eq!(world.count("select count(*) from transaction").await, 1);
        // From now on the wrapper is superfluous, and does no harm; the factory is not called.
        let wrapped = world.counterfactual(FACTORY, 0, 7, 2_000).await;
        let bare = world.payment_of(wallet, 0, 4_000);
        let unknown = world.payment_of(wallet, 0, 500);
        let by_unknown = in_wrapper(UNKNOWN_FACTORY, &[1], &signature_of(&unknown));
        for payment in [&wrapped, &bare, &signed_by(&unknown, &by_unknown)] {
            let hash = assert_paid(&world, &service, payment).await;
            assert_logged(&world, hash, payment).await;
            let to = world.node.receipt(hash).await.unwrap()["to"].clone();
            assert_eq!(to, json!(world.services.chain.usdc), "straight to the token");
        }
        // The wrapper makes nobody the owner.
        let stranger = world.payment_of(wallet, 1, 1_000);
        let owner = world.services.chain.payers[0].address;
        let data = create_account(owner, 7);
        let stranger = signed_by(&stranger, &in_wrapper(FACTORY, &data, &signature_of(&stranger)));
        assert_refused(&service, &stranger, BAD_SIGNATURE).await;
        assert_eq!((world.count(BY_CONTRACT).await, world.count(PROVEN).await), (3, 4));
        assert_eq!(world.payee_balance().await, 7_500);
        end(world, service, &[&proxy]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_factory_that_is_not_allowed_is_never_called() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    // It would deploy the wallet, and the wallet would pay.
    world.place(UNKNOWN_FACTORY, "SmartWalletFactory", U256::ZERO).await;
    let wallet = world.address_by(UNKNOWN_FACTORY, 0, 7).await;
    world.give(wallet, 10_000).await;
    proxy.listen_for(&hex::encode(UNKNOWN_FACTORY));
    let payment = world.counterfactual(UNKNOWN_FACTORY, 0, 7, 1_000).await;
    assert_refused(&service, &payment, "eip6492_factory_not_allowed").await;
    // Nor for a payer whose key could sign for itself.
    let own = world.payment(0, 1_000);
    let owner = world.services.chain.payers[0].address;
    let wrapped = in_wrapper(UNKNOWN_FACTORY, &create_account(owner, 7), &signature_of(&own));
    assert_refused(&service, &signed_by(&own, &wrapped), "eip6492_factory_not_allowed").await;
    assert_eq!((proxy.n_heard(), proxy.log().len()), (0, 0));
    assert_eq!(world.count(N_SETTLEMENTS).await, 0);
    // A wrapper that asks nothing of nobody is only a wrapper.
    for (factory, data) in [(UNKNOWN_FACTORY, &[][..]), (Address::ZERO, &[1])] {
        let payment = world.payment(0, 1_000);
        let wrapped = in_wrapper(factory, data, &signature_of(&payment));
        assert_paid(&world, &service, &signed_by(&payment, &wrapped)).await;
    }
    end(world, service, &[&proxy]).await;
}
