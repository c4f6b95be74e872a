//! Sessions: parts of a policy for one key or for a time, with budgets of their own.

use alloy::primitives::{Address, Bytes, U256};
use quittance::{
    policies::{Document, Session, Subject},
    verify::EcdsaSignature,
};
use serde_json::{Value, json};

use crate::{
    callers::reason,
    support::{Service, World, now, of_key_zero, session, signature_of, signed_by, units},
};

/// A wallet that takes any signature, as one with several keys takes that of each.
const WALLET: Address = Address::repeat_byte(0xa1);
const EXCEEDED: Option<&str> = Some("spending_policy_exceeded");
const EXPIRED: Option<&str> = Some("spending_policy_expired");
const WRONG_PAYEE: Option<&str> = Some("spending_policy_payee_not_allowed");

async fn world_with_wallet() -> (World, Service) {
    let world = World::automine().await;
    let accepts: Bytes = "0x631626ba7e60e01b5f5260205ff3".parse().unwrap();
    world.node.set_code(WALLET, &accepts).await;
    world.give(WALLET, 1_000_000).await;
    let service = world.service().await;
    (world, service)
}

/// The key of the n-th buyer.
fn key(world: &World, n: usize) -> Address {
    world.services.chain.payers[n].address
}

async fn register(service: &Service, world: &World, nonce: u64, sessions: Vec<Session>) {
    let mut policy = world.policy_of(WALLET, nonce);
    policy.sessions = sessions;
    // Whoever signs, the wallet takes it.
    service.register(&Document::Policy(policy), &world.services.chain.stranger).await;
}

/// What is spent in each session in total.
async fn spent(service: &Service, world: &World) -> Vec<String> {
    let subject: Subject = world.money_of(WALLET);
    let answer =
        service.read_policy(subject, now().seconds(), &world.services.chain.stranger).await;
    let report = answer.json();
    let sessions = report["budgets"]["sessions"].as_array().unwrap_or_else(|| panic!("{report}"));
    sessions.iter().map(|of| of["total"]["spent"].as_str().unwrap().to_owned()).collect()
}

async fn settled(service: &Service, payment: &Value) -> Option<String> {
    let answer = service.settle(payment).await;
    assert_eq!(answer["success"] == json!(true), reason(&answer).is_none(), "{answer}");
    reason(&answer).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_for_what_its_key_signed() {
    let (world, service) = world_with_wallet().await;
    let mut first = session(key(&world, 0));
    first.limits.total = units(1_000);
    let mut second = session(key(&world, 1));
    second.limits.per_payment = units(300);
    register(&service, &world, 1, vec![first, second]).await;
    let told = |n, amount| (world.payment_of(WALLET, n, amount), n, amount);
    for ((payment, n, amount), why) in [
        (told(0, 1_001), EXCEEDED),
        (told(0, 600), None),
        (told(0, 401), EXCEEDED),
        (told(1, 301), EXCEEDED),
        (told(1, 300), None),
        (told(0, 400), None),
        (told(0, 1), EXCEEDED),
        // Another's key, though the wallet takes it.
        (told(2, 1), EXPIRED),
        (told(1, 300), None),
    ] {
        service.until_verdict(&payment, why).await;
        assert_eq!(settled(&service, &payment).await.as_deref(), why, "key {n}: {amount}");
    }
    assert_eq!(spent(&service, &world).await, ["1000", "600"]);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_found_in_the_forms_that_wallets_use_and_nowhere_else() {
    let (world, service) = world_with_wallet().await;
    register(&service, &world, 1, vec![session(key(&world, 0))]).await;
    let payment = world.payment_of(WALLET, 0, 100);
    service.until_verdict(&payment, None).await;
    let plain = signature_of(&payment).to_vec();
    let of_another = signature_of(&world.payment_of(WALLET, 0, 100)).to_vec();
    for (what, signature, why) in [
        ("65 bytes", plain.clone(), None),
        ("a pair", of_key_zero(&plain), None),
        ("after a validator's address", [vec![0xb1; 20], plain.clone()].concat(), None),
        ("before something", [plain.clone(), vec![0]].concat(), EXPIRED),
        ("without its end", plain[..64].to_vec(), EXPIRED),
        ("of another payment", of_another, EXPIRED),
        ("nothing", Vec::new(), EXPIRED),
    ] {
        let answer = service.verify(&signed_by(&payment, &signature)).await;
        assert_eq!(reason(&answer), why, "{what}: {answer}");
    }
    assert!(EcdsaSignature::parse(&plain).is_some());
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_code_signs_with_its_own_key() {
    let world = World::automine().await;
    let service = world.service().await;
    let account = &world.services.chain.payers[0];
    for (nonce, session_key, why) in
        [(1, account.address, None), (2, key(&world, 1), EXPIRED), (3, Address::ZERO, None)]
    {
        let mut policy = world.policy_of(account.address, nonce);
        policy.sessions = vec![session(session_key)];
        service.register(&Document::Policy(policy), account).await;
        service.until_verdict(&world.payment(0, 100), why).await;
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_session_that_has_enough_pays() {
    let (world, service) = world_with_wallet().await;
    let with_total = |total| {
        let mut session = session(Address::ZERO);
        session.limits.total = units(total);
        session
    };
    let mut policy = world.policy_of(WALLET, 1);
    policy.limits.total = units(1_500);
    policy.sessions = vec![with_total(500), with_total(1_000), with_total(200)];
    service.register(&Document::Policy(policy), &world.services.chain.stranger).await;
    for (amount, why, spent_then) in [
        (400, None, ["400", "0", "0"]),
        (200, None, ["400", "200", "0"]),
        (100, None, ["500", "200", "0"]),
        (801, EXCEEDED, ["500", "200", "0"]),
        (800, None, ["500", "1000", "0"]),
        // The session has it, and the policy as a whole has not.
        (1, EXCEEDED, ["500", "1000", "0"]),
    ] {
        let payment = world.payment_of(WALLET, 0, amount);
        service.until_verdict(&payment, why).await;
        assert_eq!(settled(&service, &payment).await.as_deref(), why, "{amount}");
        assert_eq!(spent(&service, &world).await, spent_then, "{amount}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_a_window_payees_and_a_day_of_its_own() {
    let (world, service) = world_with_wallet().await;
    let payee = world.services.chain.payee.address;
    let far = U256::from(u64::MAX);
    let with = |change: fn(&mut Session)| {
        let mut session = session(Address::ZERO);
        change(&mut session);
        session
    };
    let not_yet = with(|session| session.limits.valid_after = U256::from(u64::MAX - 1));
    let over = with(|session| session.limits.valid_before = U256::from(2));
    let elsewhere = with(|session| session.limits.payees = vec![Address::repeat_byte(0x31)]);
    let small = with(|session| session.limits.per_day = units(100));
    let mut here = session(Address::ZERO);
    here.limits.payees = vec![payee];
    here.limits.valid_before = far;
    for (nonce, sessions, amount, why) in [
        (1, vec![not_yet.clone(), over.clone()], 1, EXPIRED),
        (2, vec![elsewhere.clone()], 1, WRONG_PAYEE),
        (3, vec![over.clone(), elsewhere.clone()], 1, EXPIRED),
        (4, vec![not_yet, small.clone()], 101, EXCEEDED),
        (5, vec![over, small.clone()], 100, None),
        (6, vec![elsewhere, small, here], 101, None),
    ] {
        register(&service, &world, nonce, sessions).await;
        let payment = world.payment_of(WALLET, 0, amount);
        service.until_verdict(&payment, why).await;
        assert_eq!(settled(&service, &payment).await.as_deref(), why, "policy {nonce}");
    }
    assert_eq!(spent(&service, &world).await, ["0", "0", "101"]);
    service.stop().await;
    world.stop().await;
}
