//! An on-chain sanctions oracle: asked when a payment is verified and again when it is claimed.

use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, keccak256};
use futures_util::future::join_all;
use quittance::app::dev::{Account, Buyer};
use serde_json::{Value, json};

use crate::{
    callers::{quittance_with, reason, stdout},
    payments::AMOUNT,
    support::{Fault, Proxy, Service, World},
};

const DENIED: &str = "address_denied";
const ORACLE: Address = Address::repeat_byte(0x5a);
const SETTING: &str = "QUITTANCE__CHAINS__LOCAL__SANCTIONS_ORACLE";
const RPC_URL: &str = "QUITTANCE__CHAINS__LOCAL__RPC_URL";
/// Longer than an answer is believed when a payment is verified.
const FORGOTTEN: Duration = Duration::from_secs(11);
/// Longer than it is believed when a payment is claimed.
const OLD: Duration = Duration::from_millis(2_100);

/// Puts the oracle there: it answers with the slot that the address names.
async fn place(world: &World) {
    let code: Bytes = "0x600435545f5260205ff3".parse().unwrap();
    world.node.set_code(ORACLE, &code).await;
    world.node.mine(1).await;
}

async fn sanction(world: &World, address: Address, is_sanctioned: bool) {
    let (slot, word) = (address.into_word(), B256::with_last_byte(u8::from(is_sanctioned)));
    world.node.call("anvil_setStorageAt", json!([ORACLE, slot, word])).await;
    world.node.mine(1).await;
}

async fn service_with(world: &World, more: &[(&str, &str)]) -> Service {
    let oracle = ORACLE.to_string();
    world.service_with(&[&[(SETTING, oracle.as_str())], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_oracle_names_neither_pays_nor_is_paid() {
    let world = World::automine().await;
    place(&world).await;
    let service = service_with(&world, &[]).await;
    let chain = &world.services.chain;
    let (payer, payee) = (chain.payers[0].address, chain.payee.address);
    sanction(&world, payer, true).await;
    for (n, expected) in [(0, Some(DENIED)), (1, None)] {
        let payment = world.payment(n, AMOUNT);
        let verified = service.verify(&payment).await;
        assert_eq!(reason(&verified), expected, "{verified}");
        let settled = service.settle(&payment).await;
        assert_eq!(reason(&settled), expected, "{settled}");
        if expected.is_some() {
            assert_eq!(verified["invalidMessage"], "the operator does not allow this payer");
        }
    }
    sanction(&world, payer, false).await;
    sanction(&world, payee, true).await;
    tokio::time::sleep(FORGOTTEN).await;
    for n in [0, 1] {
        let payment = world.payment(n, AMOUNT);
        for answer in [service.verify(&payment).await, service.settle(&payment).await] {
            assert_eq!(reason(&answer), Some(DENIED), "{answer}");
            assert!(answer.to_string().contains("this payee"), "{answer}");
        }
    }
    world.until("select count(*) from list_refusal", 6).await;
    let list = format!("oracle:{ORACLE}");
    let n_recorded: i64 = sqlx::query_scalar("select count(*) from list_refusal where list = $1")
        .bind(list)
        .fetch_one(&world.books)
        .await
        .unwrap();
    assert_eq!(n_recorded, 6);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_named_between_verifying_and_settling_is_refused_at_the_claim() {
    let world = World::automine().await;
    place(&world).await;
    let service = service_with(&world, &[]).await;
    let payer = world.services.chain.payers[0].address;
    let payment = world.payment(0, AMOUNT);
    assert_eq!(service.verify(&payment).await["isValid"], json!(true));
    sanction(&world, payer, true).await;
    tokio::time::sleep(OLD).await;
    // Verifying may go on by the former word for ten seconds; claiming does not.
    let settled = service.settle(&payment).await;
    assert_eq!(reason(&settled), Some(DENIED), "{settled}");
    world.until("select count(*) from list_refusal where stage = 'claim'", 1).await;
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oracle_that_does_not_answer_is_never_a_verdict() {
    let world = World::automine().await;
    // There is nothing at its address, and then something that is none.
    let service = service_with(&world, &[]).await;
    let unanswered = async |what: &str| {
        for path in ["/verify", "/settle"] {
            let answer = service.post(path, &world.payment(0, AMOUNT)).await;
            assert_eq!(answer.status, 503, "{what} at {path}: {}", answer.body);
            assert!(answer.header("retry-after").is_some());
        }
    };
    unanswered("no code").await;
    for (what, code) in [
        ("reverts", "0x5f5ffd"),
        ("answers two", "0x60025f5260205ff3"),
        ("answers a byte", "0x60015ff3"),
    ] {
        world.node.set_code(ORACLE, &code.parse().unwrap()).await;
        world.node.mine(1).await;
        unanswered(what).await;
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    let mut environment = world.environment();
    environment.push((SETTING, ORACLE.to_string()));
    let doctor = quittance_with(&environment, &["doctor"]).await;
    let told = "FAIL  chains.local.sanctions_oracle";
    assert!(stdout(&doctor).contains(told), "{}", stdout(&doctor));
    place(&world).await;
    let answer = service.settle(&world.payment(0, AMOUNT)).await;
    assert_eq!(answer["success"], json!(true), "{answer}");
    let doctor = quittance_with(&environment, &["doctor"]).await;
    let told = "ok    chains.local.sanctions_oracle";
    assert!(stdout(&doctor).contains(told), "{}", stdout(&doctor));
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_that_come_together_are_asked_about_together() {
    const CALL: &str = "eth_call";
    let world = World::automine().await;
    place(&world).await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = service_with(&world, &[(RPC_URL, &proxy.url)]).await;
    assert_eq!(service.verify(&world.payment(0, AMOUNT)).await["isValid"], json!(true));
    proxy.set(CALL, Fault::Delay(Duration::from_millis(1_500)));
    let n_before = proxy.n_calls(CALL);
    let payments: Vec<Value> = (0..60).map(|n| world.payment(n % 8, AMOUNT)).collect();
    let answers = join_all(payments.iter().map(|payment| service.verify(payment))).await;
    assert!(answers.iter().all(|answer| answer["isValid"] == json!(true)), "{answers:#?}");
    // One call of the lens and one of the oracle for who came first, and as many for all who came
    // meanwhile; as many again if somebody was late.
    let n_calls = proxy.n_calls(CALL) - n_before;
    assert!((3..=6).contains(&n_calls), "{n_calls} calls");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_callers_take_a_small_share_of_a_call_each() {
    const CALL: &str = "eth_call";
    const N_CALLERS: usize = 64;
    const N_EACH: usize = 8;
    let world = World::automine().await;
    place(&world).await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = service_with(&world, &[(RPC_URL, &proxy.url)]).await;
    assert_eq!(service.verify(&world.payment(0, AMOUNT)).await["isValid"], json!(true));
    // Each of a payer of its own, so that no answer is known before.
    let chain = &world.services.chain;
    let payments = join_all((0..N_CALLERS * N_EACH).map(async |n| {
        let private_key = keccak256(format!("a payer of the oracle's test {n}")).to_string();
        let account = Account { address: Address::ZERO, private_key };
        let buyer = Buyer::new(&account, chain.market()).unwrap();
        world.give(buyer.address(), AMOUNT).await;
        buyer.request(&world.authorization_of(buyer.address(), AMOUNT)).unwrap()
    }));
    let payments = payments.await;
    proxy.set(CALL, Fault::Delay(Duration::from_millis(30)));
    let n_before = proxy.n_calls(CALL);
    join_all(payments.chunks(N_EACH).map(async |own| {
        for payment in own {
            let answer = service.verify(payment).await;
            assert_eq!(answer["isValid"], json!(true), "{answer}");
        }
    }))
    .await;
    let n_calls = proxy.n_calls(CALL) - n_before;
    eprintln!("{n_calls} calls for {} verifications", payments.len());
    // A call of the lens and one of the oracle for all who come together: a sixteenth each, and less on a
    // machine that does nothing else.
    let most = u64::try_from(payments.len()).unwrap() / 10;
    assert!(n_calls <= most, "{n_calls} calls for {} verifications", payments.len());
    service.stop().await;
    world.stop().await;
}
