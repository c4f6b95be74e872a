//! What callers are told about payers with code: which reason comes first, and who is told "paid" where
//! one authorization has several good signatures.

use alloy::primitives::{Address, Bytes, U256};
use quittance::domain::AuthorizationNonce;
use serde_json::json;

use crate::{
    callers::{asking, assert_duplicate, reason},
    payments::{
        AMOUNT, NOWHERE, Recipe, VERSIONS, Version, high_s_twin, signature, with_signature,
    },
    support::{Service, World, of_key_zero},
};

/// The wallet of the first buyer.
const WALLET: Address = Address::repeat_byte(0xa1);
/// Another wallet of that buyer's, without money.
const EMPTY_WALLET: Address = Address::repeat_byte(0xa2);
/// A wallet that accepts everything.
const GULLIBLE: Address = Address::repeat_byte(0xa3);

/// A way to spoil a payment, and the reason it then gets.
type Spoil = (&'static str, fn(&mut Recipe, &World, AuthorizationNonce));

/// In order of precedence (x402 reference 2.3).
const SPOILS: [Spoil; 8] = [
    ("invalid_exact_evm_signature", |p, world, _| {
        p.account = world.services.chain.payers[1].clone();
    }),
    ("invalid_exact_evm_recipient_mismatch", |p, _, _| {
        p.edit("/paymentRequirements/payTo", NOWHERE.to_string());
    }),
    ("invalid_exact_evm_payload_authorization_valid_before", |p, _, _| {
        p.authorization.valid_before = U256::from(1);
    }),
    ("invalid_exact_evm_payload_authorization_valid_after", |p, _, _| {
        p.authorization.valid_after = U256::from(u64::MAX);
    }),
    ("invalid_exact_evm_payload_authorization_value_mismatch", |p, _, _| {
        p.edit("/paymentRequirements/amount", (AMOUNT - 1).to_string());
    }),
    ("invalid_exact_evm_nonce_already_used", |p, _, used| {
        p.authorization.payer = WALLET;
        p.authorization.nonce = used;
    }),
    ("invalid_exact_evm_token_name_mismatch", |p, _, _| p.market.token_name = "USDC".to_owned()),
    ("invalid_exact_evm_insufficient_balance", |p, _, _| p.authorization.payer = EMPTY_WALLET),
];

/// A sound payment of the wallet.
fn recipe(world: &World) -> Recipe {
    let mut recipe = Recipe::of(world, 0);
    recipe.authorization.payer = WALLET;
    recipe
}

fn expected(version: Version, reason: &'static str) -> &'static str {
    match (version, reason) {
        (Version::V1, "invalid_exact_evm_payload_authorization_value_mismatch") => {
            "invalid_exact_evm_authorization_value"
        }
        _ => reason,
    }
}

async fn world_with_wallet() -> (World, Service) {
    let world = World::automine().await;
    world.place_wallet(WALLET, 0).await;
    world.place(EMPTY_WALLET, "SmartWallet", world.owner_word(0)).await;
    let service = world.service().await;
    (world, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_reasons_against_a_payer_with_code_the_first_is_told() {
    let (world, service) = world_with_wallet().await;
    let paid = recipe(&world);
    assert_eq!(service.settle(&paid.body(Version::V2)).await["success"], json!(true));
    let used = paid.authorization.nonce;
    for version in VERSIONS {
        for (n, (first, spoil_first)) in SPOILS.iter().enumerate() {
            for (second, spoil_second) in &SPOILS[n..] {
                let mut both = recipe(&world);
                spoil_second(&mut both, &world, used);
                spoil_first(&mut both, &world, used);
                let answer = service.verify(&both.body(version)).await;
                let reason = reason(&answer);
                assert_eq!(reason, Some(expected(version, first)), "with {second}: {answer}");
            }
        }
    }
    assert_eq!(world.count("select count(*) from settlement").await, 1);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_good_signature_of_the_same_authorization_is_no_other_payment() {
    let (world, service) = world_with_wallet().await;
    let body = recipe(&world).body(Version::V2);
    let signed = signature(&body);
    // The wallet takes them all.
    let forms = [signed.clone(), of_key_zero(&signed), high_s_twin(&signed)];
    let bodies = forms.map(|form| with_signature(&body, &form));
    for body in &bodies {
        assert_eq!(service.verify(body).await["isValid"], json!(true));
    }
    let keyed = service.settle_with_key(&bodies[0], "order-1").await;
    assert_eq!(keyed.json()["success"], json!(true), "{}", keyed.body);
    let again = service.settle_with_key(&bodies[0], "order-1").await;
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&keyed.body, Some("true")));
    for body in &bodies[1..] {
        let verdict = service.verify(body).await;
        assert_eq!(reason(&verdict), Some("invalid_exact_evm_nonce_already_used"), "{verdict}");
        // Nobody but the wallet could say that the payer signed this too, so nothing is told.
        let keyed = service.settle_with_key(body, "order-1").await.json();
        for answer in [keyed, service.settle(body).await] {
            assert_duplicate(&answer, &json!(""));
        }
    }
    // All at once, and each of them twice.
    let body = recipe(&world).body(Version::V2);
    let signed = signature(&body);
    let forms = [signed.clone(), of_key_zero(&signed), high_s_twin(&signed)];
    let asked: Vec<_> = (0..6)
        .map(|n| asking(&service, "/settle", &with_signature(&body, &forms[n % 3]), None))
        .collect();
    let mut n_paid = 0;
    for asked in asked {
        let answer = asked.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        n_paid += usize::from(answer.json()["success"] == json!(true));
    }
    assert_eq!(n_paid, 1);
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    assert_eq!(world.count("select count(*) from settlement").await, 2);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_may_accept_signatures_of_any_length() {
    let (world, service) = world_with_wallet().await;
    // Some wallets keep what they approved in storage, and are shown nothing (Safe).
    let accepts: Bytes = "0x631626ba7e60e01b5f5260205ff3".parse().unwrap();
    world.node.set_code(GULLIBLE, &accepts).await;
    world.give(GULLIBLE, 1_000_000).await;
    let lengths = [0, 1, 64, 65, 8_192];
    for n_bytes in lengths {
        let mut recipe = Recipe::of(&world, 0);
        recipe.authorization.payer = GULLIBLE;
        let body = with_signature(&recipe.body(Version::V2), &vec![0x11; n_bytes]);
        assert_eq!(service.verify(&body).await["isValid"], json!(true), "{n_bytes} bytes");
        let answer = service.post("/settle", &body).await;
        assert_eq!(answer.json()["success"], json!(true), "{n_bytes} bytes: {}", answer.body);
    }
    assert_eq!(world.payee_balance().await, u64::try_from(lengths.len()).unwrap() * AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
