//! Merchants who come by themselves: Sign-In with Ethereum (EIP-4361), by a key or by a contract.

use alloy::{
    hex,
    primitives::Address,
    signers::{SignerSync as _, local::PrivateKeySigner},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    callers::{quittance, reason, stderr},
    payments::AMOUNT,
    support::{Answer, Service, World},
};

const DOMAIN: (&str, &str) = ("QUITTANCE__ONBOARDING__DOMAIN", "pay.example.com");

async fn ask(
    service: &Service,
    method: Method,
    path: &str,
    key: Option<&str>,
    body: &Value,
) -> Answer {
    let headers: Vec<_> = key.map(|key| ("X-API-Key", key.to_owned())).into_iter().collect();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    service.send(method, path, &headers, body).await
}

/// A message to sign.
async fn challenge(world: &World, service: &Service, address: Address) -> Value {
    let network = world.services.chain.chain_id.to_string();
    let body = json!({ "address": address, "network": network });
    let answer = ask(service, Method::POST, "/v1/onboarding/challenges", None, &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

fn signed(message: &str, private_key: &str) -> Value {
    let signer: PrivateKeySigner = private_key.parse().unwrap();
    let signature = signer.sign_message_sync(message.as_bytes()).unwrap();
    json!({ "message": message, "signature": hex::encode_prefixed(signature.as_bytes()) })
}

async fn come(service: &Service, signed: &Value) -> Answer {
    ask(service, Method::POST, "/v1/onboarding", None, signed).await
}

/// Comes in with the key of the payee that payments of the world name.
async fn come_as_payee(world: &World, service: &Service) -> Value {
    let payee = &world.services.chain.payee;
    let message = challenge(world, service, payee.address).await;
    let proof = signed(message["message"].as_str().unwrap(), &payee.private_key);
    let answer = come(service, &proof).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_proves_its_address_sells_at_once() {
    let world = World::automine().await;
    let service = world.service_with(&[DOMAIN]).await;
    let onboarded = come_as_payee(&world, &service).await;
    let key = onboarded["key"].as_str().unwrap();
    assert!(key.starts_with("qk_test_"), "{key}");
    assert_eq!(onboarded["isNew"], true);
    assert_eq!(onboarded["scopes"], json!(["verify", "settle", "read", "manage"]));
    let payment = world.payment(0, AMOUNT);
    let settled = ask(&service, Method::POST, "/settle", Some(key), &payment).await;
    assert_eq!(settled.json()["success"], true, "{}", settled.body);
    assert_eq!(world.payee_balance().await, AMOUNT);

    // The same address again: the same merchant, another key, and the first one goes on.
    let again = come_as_payee(&world, &service).await;
    assert_eq!(again["merchantId"], onboarded["merchantId"]);
    assert_eq!(again["isNew"], false);
    assert_ne!(again["key"], onboarded["key"]);
    for key in [key, again["key"].as_str().unwrap()] {
        let me = ask(&service, Method::GET, "/v1/me", Some(key), &Value::Null).await;
        assert_eq!(me.json()["merchant"]["merchantId"], onboarded["merchantId"], "{}", me.body);
    }

    // What it proved is where it is paid, and nowhere else.
    let mut authorization = world.authorization(1, AMOUNT);
    authorization.payee = world.services.chain.stranger.address;
    let mut elsewhere = world.buyer(1).request(&authorization).unwrap();
    elsewhere["paymentRequirements"]["payTo"] = json!(authorization.payee);
    for path in ["/verify", "/settle"] {
        let answer = ask(&service, Method::POST, path, Some(key), &elsewhere).await;
        let told = answer.json();
        assert_eq!(reason(&told), Some("invalid_payment_requirements"), "{}", answer.body);
        assert!(answer.body.contains("not among the addresses"), "{}", answer.body);
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_serves_once_for_its_signer_and_this_service() {
    let world = World::automine().await;
    let service = world.service_with(&[DOMAIN]).await;
    let chain = &world.services.chain;
    let payee = &chain.payee;
    let message = challenge(&world, &service, payee.address).await;
    let text = message["message"].as_str().unwrap();
    let refused = async |proof: &Value, status: u16, what: &str| {
        let answer = come(&service, proof).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.body);
        assert!(answer.json()["key"].is_null(), "{what}: {}", answer.body);
    };
    refused(&signed(text, &chain.stranger.private_key), 403, "another key").await;
    let elsewhere = text.replace("pay.example.com", "evil.example.com");
    refused(&signed(&elsewhere, &payee.private_key), 400, "another service").await;
    let other_chain = text.replace("Chain ID: 8453", "Chain ID: 1");
    refused(&signed(&other_chain, &payee.private_key), 400, "another chain").await;
    let other = text.replace(&payee.address.to_string(), &chain.stranger.address.to_string());
    refused(&signed(&other, &chain.stranger.private_key), 400, "a nonce of somebody else").await;
    refused(&json!({ "message": text, "signature": "0x" }), 403, "no signature").await;
    refused(&json!({ "message": text }), 400, "no member").await;
    assert_eq!(world.count("select count(*) from merchant where owner is not null").await, 0);

    // What was refused used nothing up; what was accepted does.
    let good = signed(text, &payee.private_key);
    let first = come(&service, &good).await;
    assert_eq!(first.status, 201, "{}", first.body);
    refused(&good, 409, "a second time").await;
    assert_eq!(world.count("select count(*) from merchant where owner is not null").await, 1);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_proves_itself_by_its_code() {
    let world = World::automine().await;
    let service = world.service_with(&[DOMAIN]).await;
    let wallet = Address::repeat_byte(0x5a);
    world.place(wallet, "SmartWallet", world.owner_word(0)).await;
    let chain = &world.services.chain;
    let message = challenge(&world, &service, wallet).await;
    let text = message["message"].as_str().unwrap();
    let strangers = come(&service, &signed(text, &chain.payers[1].private_key)).await;
    assert_eq!(strangers.status, 403, "{}", strangers.body);
    let owners = come(&service, &signed(text, &chain.payers[0].private_key)).await;
    assert_eq!(owners.status, 201, "{}", owners.body);
    let key = owners.json()["key"].as_str().unwrap().to_owned();

    let mut authorization = world.authorization(1, AMOUNT);
    authorization.payee = wallet;
    let mut payment = world.buyer(1).request(&authorization).unwrap();
    payment["paymentRequirements"]["payTo"] = json!(wallet);
    let verdict = ask(&service, Method::POST, "/verify", Some(&key), &payment).await;
    assert_eq!(verdict.json()["isValid"], true, "{}", verdict.body);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_addresses_are_proven_or_vouched_for_and_the_last_stays() {
    let world = World::automine().await;
    let service = world.service_with(&[DOMAIN]).await;
    let chain = &world.services.chain;
    let onboarded = come_as_payee(&world, &service).await;
    let key = onboarded["key"].as_str();
    let network = chain.chain_id.to_string();
    let path = |address: Address| format!("/v1/payees/{network}/{address}");

    let second = &chain.stranger;
    let message = challenge(&world, &service, second.address).await;
    let text = message["message"].as_str().unwrap();
    let proof = signed(text, &second.private_key);
    let wrong = signed(text, &chain.payee.private_key);
    let refused = ask(&service, Method::POST, "/v1/payees", key, &wrong).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    let unproven = json!({ "network": network, "address": second.address });
    let refused = ask(&service, Method::POST, "/v1/payees", key, &unproven).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let added = ask(&service, Method::POST, "/v1/payees", key, &proof).await;
    assert_eq!(added.status, 201, "{}", added.body);
    let listed = ask(&service, Method::GET, "/v1/payees", key, &Value::Null).await;
    let payees = listed.json()["payees"].as_array().unwrap().clone();
    assert_eq!(payees.len(), 2, "{}", listed.body);
    assert!(payees.iter().all(|payee| payee["isProven"] == true), "{}", listed.body);

    // An operator vouches.
    let operator = Some(world.keys.operator.reveal());
    let third = Address::repeat_byte(0x77);
    let vouched = json!({
        "merchantId": onboarded["merchantId"], "network": network, "address": third
    });
    let added = ask(&service, Method::POST, "/v1/payees", operator, &vouched).await;
    assert_eq!(added.status, 201, "{}", added.body);
    let last = added.json()["payees"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["address"], json!(third.to_checksum(None)));
    assert_eq!(last["isProven"], false);

    for (address, status) in [(third, 200), (third, 404), (second.address, 200)] {
        let removed = ask(&service, Method::DELETE, &path(address), key, &Value::Null).await;
        assert_eq!(removed.status.as_u16(), status, "{}", removed.body);
    }
    let last = ask(&service, Method::DELETE, &path(chain.payee.address), key, &Value::Null).await;
    assert_eq!(last.status, 409, "{}", last.body);
    let recorded = "select count(*) from audit where action like 'payee.%'";
    assert_eq!(world.count(recorded).await, 5, "three were added and two removed");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_decides_who_comes_and_how_many() {
    let world = World::automine().await;
    let chain = &world.services.chain;
    // Nobody, unless the operator says under which name.
    let shut = world.service().await;
    let body = json!({ "address": chain.payee.address, "network": chain.chain_id.to_string() });
    for path in ["/v1/onboarding/challenges", "/v1/onboarding"] {
        let answer = ask(&shut, Method::POST, path, None, &body).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
    }
    shut.stop().await;

    let one_a_day = ("QUITTANCE__ONBOARDING__N_MERCHANTS_PER_DAY_MAX", "1");
    let service = world.service_with(&[DOMAIN, one_a_day]).await;
    let onboarded = come_as_payee(&world, &service).await;
    let message = challenge(&world, &service, chain.stranger.address).await;
    let text = message["message"].as_str().unwrap();
    let second = come(&service, &signed(text, &chain.stranger.private_key)).await;
    assert_eq!(second.status, 429, "{}", second.body);
    assert!(second.header("retry-after").is_some());
    // Who is in already still gets keys; who was suspended does not.
    come_as_payee(&world, &service).await;
    let merchant = onboarded["merchantId"].as_str().unwrap();
    let suspended =
        quittance(&world, &["merchant", "suspend", merchant, "--reason", "chargebacks"]).await;
    assert!(suspended.status.success(), "{}", stderr(&suspended));
    let message = challenge(&world, &service, chain.payee.address).await;
    let text = message["message"].as_str().unwrap();
    let stopped = come(&service, &signed(text, &chain.payee.private_key)).await;
    assert_eq!(stopped.status, 403, "{}", stopped.body);
    assert_eq!(stopped.json()["error"], "merchant_suspended");
    service.stop().await;
    world.stop().await;
}
