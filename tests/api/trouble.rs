//! Trouble of ours: it is told as trouble, never as a verdict on a payment, and it passes.

use std::{path::PathBuf, time::Duration};

use quittance::{
    app::dev::{ChainRequest, LocalChain},
    domain::KeyMode,
    merchants::ApiKey,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    callers::{asking, assert_shape, hash, reason},
    payments::{AMOUNT, Recipe, VERSIONS, Version},
    support::{Answer, Fault, Node, Proxy, Service, World},
};

const RPC_URL: &str = "QUITTANCE__CHAINS__LOCAL__RPC_URL";
const N_SETTLEMENTS: &str = "select count(*) from settlement";
const N_INCLUDED: &str = "select count(*) from settlement where status = 'included'";

/// 503, in the shape of the route, and when to come back.
fn assert_trouble(path: &str, answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{what} at {path}: {}", answer.body);
    let seconds = answer.header("retry-after").map(str::parse::<u32>);
    assert!(matches!(seconds, Some(Ok(1..=30))), "{what} at {path}: {seconds:?}");
    let body = answer.json();
    assert_shape(path, &body);
    let expected = match path {
        "/verify" => "unexpected_verify_error",
        _ => "unexpected_settle_error",
    };
    assert_eq!(reason(&body), Some(expected), "{what}: {body}");
    for secret in ["127.0.0.1", "postgres", "http"] {
        assert!(!answer.body.contains(secret), "{what} tells our surroundings: {body}");
    }
}

async fn assert_both_in_trouble(service: &Service, payment: &Recipe, what: &str) {
    for version in VERSIONS {
        for path in ["/verify", "/settle"] {
            let answer = service.post(path, &payment.body(version)).await;
            assert_trouble(path, &answer, what);
            if path == "/settle" {
                assert_eq!(answer.json()["network"], json!(version.base()), "{what}");
                assert_eq!(answer.json()["transaction"], json!(""), "{what}");
            }
        }
    }
    assert_eq!(service.operations("/livez").await.status, 200, "{what}");
}

/// What `/readyz` says once its status is `status`.
async fn until_readiness(service: &Service, status: u16, what: &str) -> String {
    for _ in 0..1_500 {
        let answer = service.operations("/readyz").await;
        if answer.status.as_u16() == status {
            assert_eq!(answer.json()["ready"], json!(status == 200));
            return answer.json()["troubles"].to_string();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: /readyz is not {status} after 30 seconds\n{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_in_trouble_is_no_verdict_and_the_service_recovers_by_itself() {
    let world = World::automine().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let settings = [(RPC_URL, &*proxy.url), ("QUITTANCE__CHAINS__LOCAL__RPC_TIMEOUT_MS", "300")];
    let service = world.service_with(&settings).await;
    for fault in [
        Fault::DropBefore,
        Fault::DropAfterForward,
        Fault::BlackHole,
        Fault::WebPage,
        Fault::RateLimited,
    ] {
        proxy.set_all(fault);
        // What was verified a moment ago could be settled without another look.
        let payment = Recipe::of(&world, 0);
        assert_both_in_trouble(&service, &payment, &format!("{fault:?}")).await;
        assert_eq!(world.count(N_SETTLEMENTS).await, 0, "{fault:?}");
        proxy.heal();
        let answer = service.verify(&payment.body(Version::V2)).await;
        assert_eq!(answer["isValid"], json!(true), "healed of {fault:?}: {answer}");
    }
    // Part of the answers is not enough either.
    let payment = Recipe::of(&world, 0);
    proxy.set("eth_call", Fault::RateLimited);
    assert_both_in_trouble(&service, &payment, "eth_call").await;
    proxy.heal();
    assert_eq!(world.count(N_SETTLEMENTS).await, 0);

    // A payment that is wrong by its own words is refused all the same.
    proxy.set_all(Fault::DropBefore);
    let mut expired = Recipe::of(&world, 0);
    expired.authorization.valid_before = alloy::primitives::U256::from(1);
    let answer = service.verify(&expired.body(Version::V2)).await;
    let valid_before = "invalid_exact_evm_payload_authorization_valid_before";
    assert_eq!(reason(&answer), Some(valid_before));
    let troubles = until_readiness(&service, 503, "the endpoint is down").await;
    assert!(troubles.contains("eip155:8453"), "{troubles}");
    proxy.heal();
    until_readiness(&service, 200, "the endpoint is back").await;
    assert_eq!(service.settle(&payment.body(Version::V2)).await["success"], json!(true));
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_starts_without_its_endpoint_waits_for_it() {
    let world = World::automine().await;
    let payment = Recipe::of(&world, 0);
    let refusing = [(RPC_URL, "http://127.0.0.1:1")];
    let service = Service::spawn(&world, &refusing).await;
    assert_both_in_trouble(&service, &payment, "nobody listens").await;
    let troubles = until_readiness(&service, 503, "nobody listens").await;
    assert!(troubles.contains("eip155:8453"), "{troubles}");
    service.stop().await;

    let proxy = Proxy::before(&world.services.chain.rpc_url);
    proxy.set_all(Fault::DropBefore);
    let service = Service::spawn(&world, &[(RPC_URL, &proxy.url)]).await;
    assert_both_in_trouble(&service, &payment, "502 from the start").await;
    assert_eq!(world.count(N_SETTLEMENTS).await, 0);
    proxy.heal();
    until_readiness(&service, 200, "healed").await;
    assert_eq!(service.settle(&payment.body(Version::V2)).await["success"], json!(true));
    service.stop().await;
    world.stop().await;
}

/// A world whose chain is Base Sepolia, and a service that was told it is Base.
async fn mistaken() -> (World, Service) {
    let sepolia = ChainRequest { chain_id: Some(84_532), ..ChainRequest::default() };
    let world = World::start(sepolia).await;
    let service = Service::spawn(&world, &[("QUITTANCE__CHAINS__LOCAL__ID", "eip155:8453")]).await;
    (world, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_another_chain_judges_nothing() {
    let (world, service) = mistaken().await;
    let troubles = until_readiness(&service, 503, "another chain").await;
    assert!(troubles.contains("eip155:8453"), "{troubles}");
    let mut payment = Recipe::of(&world, 0);
    payment.market.chain_id = "eip155:8453".parse().unwrap();
    assert_both_in_trouble(&service, &payment, "a token of the other chain").await;
    payment.market.asset = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913".parse().unwrap();
    assert_both_in_trouble(&service, &payment, "a token of this chain").await;
    assert_eq!(world.count(N_SETTLEMENTS).await, 0);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_another_chain_leaves_no_trace() {
    let world = World::automine().await;
    let other = other_chain().await;
    let service = Service::spawn(&world, &[(RPC_URL, &other.rpc_url)]).await;
    let troubles = until_readiness(&service, 503, "another chain").await;
    assert!(troubles.contains("eip155:8453"), "{troubles}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    service.stop().await;
    other.stop().await.unwrap();
    let n_heads = world.count("select count(*) from chain_head").await;

    // The operator corrects the setting.
    let service = world.service_with(&[("QUITTANCE__SETTLE__WAIT_MS", "5000")]).await;
    let paid = service.settle(&world.payment(0, AMOUNT)).await;
    assert_eq!(paid["success"], json!(true), "{paid}");
    assert_eq!(n_heads, 0, "blocks of the other chain were recorded as this one's");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

/// Another chain, far ahead, so that nobody takes it for a node that lags.
async fn other_chain() -> LocalChain {
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("anvil-scripts");
    let request = ChainRequest { chain_id: Some(84_532), ..ChainRequest::default() };
    let other = LocalChain::start(&scripts, &request).await.unwrap();
    Node::new(&other.rpc_url).mine(50).await;
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_turns_to_another_chain_judges_nothing() {
    let world = World::automine().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    let before = Recipe::of(&world, 0);
    assert_eq!(service.verify(&before.body(Version::V2)).await["isValid"], json!(true));
    let payment = Recipe::of(&world, 0);
    let other = other_chain().await;
    proxy.retarget(&other.rpc_url);
    assert_both_in_trouble(&service, &payment, "it turned to another chain").await;
    assert_eq!(world.count(N_SETTLEMENTS).await, 0);
    proxy.retarget(&world.services.chain.rpc_url);
    assert_eq!(service.settle(&payment.body(Version::V2)).await["success"], json!(true));
    service.stop().await;
    other.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_turns_to_another_chain_takes_nothing_back() {
    let world = World::automine().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    let paid = service.settle(&world.payment(0, AMOUNT)).await;
    assert_eq!(paid["success"], json!(true), "{paid}");

    let other = other_chain().await;
    proxy.retarget(&other.rpc_url);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.count(N_INCLUDED).await, 1, "{}", service.log());
    proxy.retarget(&world.services.chain.rpc_url);
    until_readiness(&service, 200, "it turned back").await;
    let paid = service.settle(&world.payment(1, AMOUNT)).await;
    assert_eq!(paid["success"], json!(true), "{paid}\n{}", service.log());
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    assert_eq!(world.count("select count(*) from ledger_entry where kind = 'reverse'").await, 0);
    world.check_books().await;
    service.stop().await;
    other.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_cannot_be_signed_yet_is_promised_and_not_judged() {
    let world = World::automine().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let settings = [(RPC_URL, &*proxy.url), ("QUITTANCE__SETTLE__WAIT_MS", "500")];
    let service = world.service_with(&settings).await;
    let payment = world.payment(0, AMOUNT);
    proxy.set("eth_feeHistory", Fault::DropBefore);
    for _ in 0..2 {
        let answer = service.post("/settle", &payment).await;
        assert_trouble("/settle", &answer, "no fees are known");
        assert_eq!(answer.json()["transaction"], json!(""));
    }
    assert_eq!(world.count(N_SETTLEMENTS).await, 1);
    proxy.heal();
    world.until(N_INCLUDED, 1).await;
    let answer = service.settle(&payment).await;
    assert_eq!(answer["success"], json!(true), "{answer}");
    assert_eq!(world.payee_balance().await, AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_books_the_service_judges_nothing() {
    let mut world = World::automine().await;
    let service = world.service().await;
    let payment = Recipe::of(&world, 0);
    world.stop_postgres().await;
    for path in ["/verify", "/settle"] {
        let answer = service.post(path, &payment.body(Version::V2)).await;
        assert_trouble(path, &answer, "Postgres is stopped");
    }
    assert_eq!(service.operations("/livez").await.status, 200);
    // Nor does it say that a key is wrong when it cannot look.
    let unknown = ApiKey::generate(KeyMode::Test);
    let headers = [("X-API-Key", unknown.reveal().to_owned())];
    let body = payment.body(Version::V2).to_string();
    let answer = service.send(Method::POST, "/verify", &headers, body).await;
    assert_trouble("/verify", &answer, "a key that cannot be looked up");
    let supported = service.send(Method::GET, "/supported", &[], String::new()).await;
    assert_eq!(supported.status, 200);
    let troubles = until_readiness(&service, 503, "Postgres is stopped").await;
    assert!(troubles.contains("database"), "{troubles}");

    world.start_postgres().await;
    until_readiness(&service, 200, "Postgres is back").await;
    let answer = service.settle(&payment.body(Version::V2)).await;
    assert_eq!(answer["success"], json!(true), "{answer}");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_under_way_outlives_its_books() {
    let mut world = World::stepped().await;
    let service = world.service_with(&[("QUITTANCE__SETTLE__WAIT_MS", "2000")]).await;
    let payment = world.payment(0, AMOUNT);
    let asked = asking(&service, "/settle", &payment, None);
    world.node.until_pending(1).await;
    world.stop_postgres().await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().unwrap();
    assert_trouble("/settle", &answer, "Postgres stopped while a caller waited");
    world.start_postgres().await;
    world.until(N_INCLUDED, 1).await;
    // Nobody was told. Whose right the lost one was is forgotten after a while.
    world.until("select count(*) from settlement where answer_held_until > now()", 0).await;
    let answer = service.settle(&payment).await;
    assert_eq!(answer["success"], json!(true), "{answer}");
    assert_eq!(world.payee_balance().await, AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_a_request_id() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT).to_string();
    let longest = "x".repeat(128);
    let (mut made, mut logged) = (Vec::new(), Vec::new());
    for (given, is_kept) in [
        (Some("order-1/2"), true),
        (Some(&*longest), true),
        (Some(&*format!("{longest}x")), false),
        (Some("a b"), false),
        (Some("ü"), false),
        (Some(""), false),
        (None, false),
    ] {
        for (method, path, key) in [
            (Method::POST, "/verify", service.authorization()),
            (Method::POST, "/settle", ("X-API-Key", "wrong".to_owned())),
            (Method::GET, "/settle", service.authorization()),
            (Method::GET, "/supported", service.authorization()),
            (Method::GET, "/nowhere", service.authorization()),
        ] {
            let mut headers = vec![key];
            headers.extend(given.map(|id| ("X-Request-Id", id.to_owned())));
            let answer = service.send(method, path, &headers, payment.clone()).await;
            let id = answer.header("x-request-id").expect("an id").to_owned();
            if is_kept {
                assert_eq!(Some(&*id), given, "{path}");
            } else {
                assert!((16..=128).contains(&id.len()), "{path}: {id}");
                // Verdicts have no line of their own.
                if path != "/verify" {
                    logged.push(id.clone());
                }
                made.push(id);
            }
        }
    }
    let n_made = made.len();
    made.sort();
    made.dedup();
    assert_eq!(made.len(), n_made, "no id is made twice");
    assert!(
        service.log().contains(&format!("\"request.id\":\"{}\"", logged[0])),
        "{}",
        service.log()
    );
    service.stop().await;
    world.stop().await;
}

async fn until_logged(service: &Service, message: &str) {
    for _ in 0..500 {
        if service.log().contains(&format!("\"message\":\"{message}\"")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{message:?} is not logged after 10 seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_told_to_stop_answers_who_waits_first() {
    let world = World::stepped().await;
    let service = world.service().await;
    let asked = asking(&service, "/settle", &world.payment(0, AMOUNT), None);
    world.node.until_pending(1).await;
    service.signal("TERM").await;
    until_logged(&service, "stopping").await;
    let late = reqwest::get(format!("{}/supported", service.url)).await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.json()["success"], json!(true), "{}", answer.body);
    assert!(late.is_err(), "nobody new is let in");
    service.stop().await;
    assert_eq!(world.payee_balance().await, AMOUNT);
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_told_to_stop_does_not_wait_for_a_block_for_ever() {
    let world = World::stepped().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT);
    let asked = asking(&service, "/settle", &payment, None);
    world.node.until_pending(1).await;
    let told_at = std::time::Instant::now();
    service.signal("TERM").await;
    let answer = asked.await.unwrap().unwrap();
    let took = told_at.elapsed();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_shape("/settle", &answer.json());
    assert_eq!(reason(&answer.json()), Some("settlement_pending"), "{}", answer.body);
    assert!((9..15).contains(&took.as_secs()), "{took:?}");
    service.stop().await;
    assert!(told_at.elapsed() < Duration::from_secs(20), "{:?}", told_at.elapsed());

    world.node.mine(1).await;
    let service = world.service().await;
    world.until(N_INCLUDED, 1).await;
    let paid = service.settle(&payment).await;
    assert_eq!(paid["success"], json!(true), "{paid}");
    assert_eq!(hash(&paid), hash(&answer.json()));
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_over_the_same_books_pay_everything_once() {
    let world = World::automine().await;
    let services = [world.service().await, world.service().await];
    let payments: Vec<Value> = (0..20).map(|n| world.payment(n % 4, AMOUNT)).collect();
    let mut asked = Vec::new();
    for payment in &payments {
        for service in &services {
            asked.push(asking(service, "/settle", payment, None));
        }
    }
    let mut n_paid = 0;
    for asked in asked {
        let answer = asked.await.unwrap().unwrap().json();
        assert_shape("/settle", &answer);
        match reason(&answer) {
            None => n_paid += 1,
            reason => assert_eq!(reason, Some("duplicate_settlement"), "{answer}"),
        }
    }
    assert_eq!(n_paid, payments.len());
    assert_eq!(world.payee_balance().await, 20 * AMOUNT);
    // Keyed repetitions get the same answer wherever they arrive.
    let payment = world.payment(0, AMOUNT);
    let [first, second] = &services;
    let (first, second) = tokio::join!(
        first.settle_with_key(&payment, "order-1"),
        second.settle_with_key(&payment, "order-1"),
    );
    assert_eq!(first.body, second.body);
    assert_eq!(first.json()["success"], json!(true), "{}", first.body);
    world.check_books().await;
    for service in services {
        service.stop().await;
    }
    assert_eq!(world.payee_balance().await, 21 * AMOUNT);
    world.stop().await;
}
