//! Success is handed out once, and a caller that was not told can come back for it (DESIGN.md 2.1).

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    callers::{asking, assert_duplicate, assert_shape, hash, merchant_key, reason},
    payments::{AMOUNT, NOWHERE, Recipe, SIGNATURE, VERSIONS, Version, with},
    support::{Answer, Service, World},
};

const REPLAYED: &str = "idempotent-replayed";

fn success(answer: &Value) -> bool {
    assert_shape("/settle", answer);
    answer["success"] == json!(true)
}

async fn settle_as(service: &Service, key: &str, payment: &Value) -> Answer {
    let headers = [("X-API-Key", key.to_owned())];
    service.send(Method::POST, "/settle", &headers, payment.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_equal_requests_one_is_told_success() {
    let world = World::automine().await;
    let service = world.service().await;
    for (n, version) in VERSIONS.into_iter().enumerate() {
        let payment = version.form(&world.payment(n, AMOUNT));
        let asked: Vec<_> = (0..10).map(|_| asking(&service, "/settle", &payment, None)).collect();
        let mut paid = Vec::new();
        let mut refused = Vec::new();
        for asked in asked {
            let answer = asked.await.unwrap().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.header(REPLAYED), None);
            let answer = answer.json();
            if success(&answer) { paid.push(answer) } else { refused.push(answer) }
        }
        assert_eq!((paid.len(), refused.len()), (1, 9), "{paid:?} {refused:?}");
        for answer in refused {
            assert_eq!(reason(&answer), Some("duplicate_settlement"));
            // The hash is told once there is one.
            let transaction = &answer["transaction"];
            assert!(*transaction == json!("") || *transaction == paid[0]["transaction"]);
        }
        assert_duplicate(&service.settle(&payment).await, &paid[0]["transaction"]);
    }
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    let wallet = world.services.chain.wallet.address;
    assert_eq!(world.node.account_nonce(wallet).await, 2, "one transaction a payment");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_same_answer_again() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT);
    let first = service.settle_with_key(&payment, "order-1").await;
    assert!(success(&first.json()), "{}", first.body);
    assert_eq!(first.header(REPLAYED), None);
    for _ in 0..2 {
        let again = service.settle_with_key(&payment, "order-1").await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header(REPLAYED), Some("true"));
    }
    let transaction = &first.json()["transaction"];
    for key in ["order-2", "ORDER-1", "order-1 x"].map(|key| key.replace(' ', "_")) {
        let other = service.settle_with_key(&payment, &key).await;
        assert_duplicate(&other.json(), transaction);
        assert_eq!(other.header(REPLAYED), None);
    }
    assert_duplicate(&service.settle(&payment).await, transaction);

    // A key does not help what was claimed without one.
    let payment = world.payment(1, AMOUNT);
    let first = service.settle(&payment).await;
    assert!(success(&first));
    let keyed = service.settle_with_key(&payment, "order-3").await;
    assert_duplicate(&keyed.json(), &first["transaction"]);
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_at_the_same_time_gets_the_same_answer() {
    const N_PAYMENTS: u64 = 12;
    const N_EQUAL: usize = 5;
    let world = World::automine().await;
    let service = world.service().await;
    for n in 0..N_PAYMENTS {
        let payment = world.payment(0, AMOUNT);
        let key = format!("order-{n}");
        let asked: Vec<_> =
            (0..N_EQUAL).map(|_| asking(&service, "/settle", &payment, Some(&key))).collect();
        let mut bodies = Vec::new();
        let mut n_replayed = 0;
        for asked in asked {
            let answer = asked.await.unwrap().unwrap();
            assert!(success(&answer.json()), "{}", answer.body);
            n_replayed += usize::from(answer.header(REPLAYED) == Some("true"));
            bodies.push(answer.body);
        }
        bodies.dedup();
        assert_eq!((bodies.len(), n_replayed), (1, N_EQUAL - 1), "{bodies:?}");
    }
    assert_eq!(world.payee_balance().await, AMOUNT * N_PAYMENTS);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_for_another_payment_is_a_conflict() {
    let world = World::automine().await;
    let service = world.service().await;
    let (first, second) = (world.payment(0, AMOUNT), world.payment(1, AMOUNT));
    // A payment that was refused used up nothing.
    let forged = with(&first, SIGNATURE, format!("0x{}", "11".repeat(65)));
    let refused = service.settle_with_key(&forged, "order-1").await;
    assert_eq!(reason(&refused.json()), Some("invalid_exact_evm_signature"));

    assert!(success(&service.settle_with_key(&first, "order-1").await.json()));
    for version in VERSIONS {
        let conflict = service.settle_with_key(&version.form(&second), "order-1").await;
        assert_eq!(conflict.status, 409, "{}", conflict.body);
        let answer = conflict.json();
        assert_shape("/settle", &answer);
        assert_eq!(reason(&answer), Some("idempotency_error"));
        assert_eq!(answer["transaction"], json!(""));
        assert_eq!(answer["network"], json!(version.base()));
    }
    // Also when the other payment was claimed already.
    assert!(success(&service.settle_with_key(&second, "order-2").await.json()));
    assert_eq!(service.settle_with_key(&second, "order-1").await.status, 409);

    // Two payments race for one key: one is paid.
    let payments = [world.payment(2, AMOUNT), world.payment(3, AMOUNT)];
    let asked = payments.map(|payment| asking(&service, "/settle", &payment, Some("order-3")));
    let mut statuses = Vec::new();
    for asked in asked {
        let answer = asked.await.unwrap().unwrap();
        assert_eq!(success(&answer.json()), answer.status == 200, "{}", answer.body);
        statuses.push(answer.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);

    // Keys are each merchant's own.
    let payment = world.payment(2, AMOUNT);
    let key = merchant_key(&world, "other").await;
    let headers = [("X-API-Key", key), ("Idempotency-Key", "order-1".to_owned())];
    let answer = service.send(Method::POST, "/settle", &headers, payment.to_string()).await;
    assert!(success(&answer.json()), "{}", answer.body);
    assert_eq!(world.payee_balance().await, 4 * AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_other_terms_learn_nothing_of_a_settlement() {
    let world = World::automine().await;
    let service = world.service().await;
    let other = merchant_key(&world, "other").await;
    let payment = Recipe::of(&world, 0);
    let body = payment.body(Version::V2);
    let paid = service.settle_with_key(&body, "order-1").await.json();
    assert!(success(&paid));

    assert_duplicate(&settle_as(&service, &other, &body).await.json(), &json!(""));
    let headers = [("X-API-Key", other), ("Idempotency-Key", "order-1".to_owned())];
    let replay = service.send(Method::POST, "/settle", &headers, body.to_string()).await;
    assert_duplicate(&replay.json(), &json!(""));

    let mut of_another = payment.clone();
    of_another.account = world.services.chain.payers[1].clone();
    let nonce = payment.authorization.nonce;
    let mut forgery = Recipe::of(&world, 0);
    forgery.authorization.nonce = nonce;
    let claimed_from = "/paymentPayload/payload/authorization/from";
    for (what, changed) in [
        ("payee", with(&body, "/paymentRequirements/payTo", NOWHERE.to_string())),
        ("amount", with(&body, "/paymentRequirements/amount", "1")),
        ("more", with(&body, "/paymentRequirements/amount", (AMOUNT + 1).to_string())),
        ("token name", with(&body, "/paymentRequirements/extra/name", "USDC")),
        ("no domain", with(&body, "/paymentRequirements/extra", json!(null))),
        ("no signature", with(&body, SIGNATURE, "0x")),
        (
            "signature of another payer",
            with(
                &of_another.body(Version::V2),
                claimed_from,
                payment.authorization.payer.to_string(),
            ),
        ),
        (
            "value",
            with(&body, "/paymentPayload/payload/authorization/value", (AMOUNT + 1).to_string()),
        ),
    ] {
        for key in [None, Some("order-1")] {
            let answer = asking(&service, "/settle", &changed, key).await.unwrap().unwrap();
            assert_eq!(answer.status, 200, "{what}");
            assert_eq!(answer.header(REPLAYED), None, "{what}");
            let answer = answer.json();
            assert_shape("/settle", &answer);
            assert!(!success(&answer), "{what}: {answer}");
            assert_eq!(reason(&answer), Some("duplicate_settlement"), "{what}: {answer}");
            assert_eq!(answer["transaction"], json!(""), "{what}: {answer}");
        }
    }
    // What does not change the terms is the same request.
    for (what, same) in [
        ("patience", with(&body, "/paymentRequirements/maxTimeoutSeconds", 7)),
        ("resource", with(&body, "/paymentPayload/resource", json!(null))),
        ("version", Version::V1.form(&body)),
    ] {
        let again = service.settle_with_key(&same, "order-1").await;
        assert_eq!(again.header(REPLAYED), Some("true"), "{what}: {}", again.body);
        assert_eq!(again.json()["transaction"], paid["transaction"], "{what}");
    }
    // The same nonce of another payer is another payment.
    let mut other_payer = Recipe::of(&world, 1);
    other_payer.authorization.nonce = nonce;
    assert!(success(&service.settle(&other_payer.body(Version::V2)).await));
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    // Another signed amount under the same nonce cannot be paid any more.
    forgery.authorization.amount = quittance::domain::Amount::parse("1").unwrap();
    assert_duplicate(&service.settle(&forgery.body(Version::V2)).await, &json!(""));
    let verdict = service.verify(&body).await;
    assert_eq!(reason(&verdict), Some("invalid_exact_evm_nonce_already_used"));
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_pending_takes_the_success_with_its_next_request() {
    let world = World::stepped().await;
    let service = world.service_with(&[("QUITTANCE__SETTLE__WAIT_MS", "500")]).await;
    for (n, key) in [None, Some("order-1")].into_iter().enumerate() {
        let payment = world.payment(n, AMOUNT);
        let ask = async || asking(&service, "/settle", &payment, key).await.unwrap().unwrap();
        let mut pending = json!(null);
        // The SDK repeats at once; it is told the same as long as no block decides.
        for _ in 0..2 {
            let asked_at = Instant::now();
            let answer = ask().await;
            assert_eq!(answer.status, 200);
            pending = answer.json();
            assert_shape("/settle", &pending);
            assert_eq!(reason(&pending), Some("settlement_pending"), "{pending}");
            let took = asked_at.elapsed();
            assert!(took >= Duration::from_millis(450), "told pending after {took:?}");
            assert!(took < Duration::from_secs(4), "told pending after {took:?}");
            let sent =
                world.node.call("eth_getTransactionByHash", json!([pending["transaction"]])).await;
            assert_eq!(sent["hash"], pending["transaction"], "the pool does not know it: {sent}");
            assert_eq!(sent["blockHash"], json!(null));
        }
        world.node.mine(1).await;
        let paid = ask().await;
        assert!(success(&paid.json()), "{}", paid.body);
        assert_eq!(paid.json()["transaction"], pending["transaction"]);
        assert_eq!(paid.header(REPLAYED), None, "success was not told before");
        let third = ask().await;
        match key {
            None => assert_duplicate(&third.json(), &pending["transaction"]),
            Some(_) => {
                assert_eq!(third.body, paid.body);
                assert_eq!(third.header(REPLAYED), Some("true"));
            }
        }
    }
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_waits_another_is_told_that_it_is_a_duplicate() {
    let world = World::stepped().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT);
    let first = asking(&service, "/settle", &payment, None);
    world.node.until_pending(1).await;
    let asked_at = Instant::now();
    let second = service.settle(&payment).await;
    assert_eq!(reason(&second), Some("duplicate_settlement"), "{second}");
    assert!(asked_at.elapsed() < Duration::from_secs(4), "a duplicate waits for nothing");
    // The right to the answer is kept for longer than it lasts without renewal (6 s).
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_duplicate(&service.settle(&payment).await, &second["transaction"]);
    world.node.mine(1).await;
    let first = first.await.unwrap().unwrap().json();
    assert!(success(&first), "{first}");
    assert_eq!(first["transaction"], second["transaction"]);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hung_up_takes_the_answer_with_its_next_request() {
    let world = World::stepped().await;
    let service = world.service().await;
    for (n, key) in [None, Some("order-1")].into_iter().enumerate() {
        let payment = world.payment(n, AMOUNT);
        let asked = asking(&service, "/settle", &payment, key);
        world.node.until_pending(1).await;
        asked.abort();
        let hung_up_at = Instant::now();
        // The right is given back, not left to lapse.
        world.until("select count(*) from settlement where answer_held_until is not null", 0).await;
        assert!(hung_up_at.elapsed() < Duration::from_secs(5), "{:?}", hung_up_at.elapsed());
        let retry = asking(&service, "/settle", &payment, key);
        world
            .until(
                "select count(*) from settlement where answer_held_until is not null",
                1 - n as i64,
            )
            .await;
        world.node.mine(1).await;
        let paid = retry.await.unwrap().unwrap();
        assert!(success(&paid.json()), "{}", paid.body);
        assert!(world.node.receipt(hash(&paid.json())).await.is_some());
        let third = asking(&service, "/settle", &payment, key).await.unwrap().unwrap();
        assert_eq!(success(&third.json()), key.is_some(), "{}", third.body);
    }
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_than_the_resource_server_allows() {
    let world = World::stepped().await;
    let service = world.service().await;
    for version in VERSIONS {
        let payment = world.payment(0, AMOUNT);
        let payment = with(&payment, "/paymentRequirements/maxTimeoutSeconds", 1);
        let asked_at = Instant::now();
        let answer = service.settle(&version.form(&payment)).await;
        assert_eq!(reason(&answer), Some("settlement_pending"), "{answer}");
        let took = asked_at.elapsed();
        assert!(took >= Duration::from_millis(950), "{took:?}");
        assert!(took < Duration::from_secs(6), "{took:?}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_1_to_255_visible_ascii_characters() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT);
    let longest = "x".repeat(255);
    for wrong in ["", " ", "a b", "\t", "schlüssel", &"x".repeat(256)] {
        let answer = service.settle_with_key(&payment, wrong).await;
        assert_eq!(answer.status, 400, "{wrong:?}: {}", answer.body);
        assert_shape("/settle", &answer.json());
        assert_eq!(reason(&answer.json()), Some("invalid_request"), "{wrong:?}");
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    for right in [longest.as_str(), "!~"] {
        let answer = service.settle_with_key(&world.payment(0, AMOUNT), right).await;
        assert!(success(&answer.json()), "{right}: {}", answer.body);
    }
    service.stop().await;
    world.stop().await;
}
