//! `openapi.yaml` is the contract: routes, reasons, examples and real answers are held against it.
//!
//! A fuzzer can be driven from it too, which is no part of this suite:
//!
//! ```text
//! quittance dev --state-dir .dev &   # and wait for .dev/dev.env
//! pip install schemathesis==4.32.5
//! . .dev/dev.env
//! schemathesis run openapi.yaml --url "$QUITTANCE_URL" -H "Authorization: Bearer $QUITTANCE_API_KEY" \
//!     --exclude-path-regex '^/(livez|readyz|metrics)$' --exclude-checks negative_data_rejection \
//!     --max-examples 300 --max-time 240 --continue-on-failure
//! ```
//!
//! The check that is left out wants 4xx for a body outside the schema; here every JSON object is a
//! question, and its answer is 200. Any failure of the others is a defect, here or there.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
mod support;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use quittance::{
    audit::Actor,
    domain::{InvalidReason, KeyMode, MerchantId, UnixTime},
    merchants::{ApiKey, ApiKeys, Authority, KeyOwner, NewKey, Pepper, Scopes},
    policies::Document,
    protocol::{Code, parse_request},
    verify::{Factories, terms},
};
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Map, Value, json};
use support::{Answer, Fault, Proxy, Service, World, session, signed};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use yaml_rust2::{Yaml, YamlLoader};

const DOCUMENT: &str = include_str!("../openapi.yaml");
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
/// Headers that come with HTTP itself.
const USUAL_HEADERS: [&str; 5] =
    ["connection", "content-length", "content-type", "date", "transfer-encoding"];

#[test]
fn the_document_is_of_this_version() {
    assert_eq!(Contract::read().document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_route_of_the_source_is_documented_and_no_other() {
    let documented: BTreeSet<String> =
        Contract::read().operations().into_iter().map(|(path, _)| path).collect();
    assert_eq!(documented, routes_in_source());
}

#[test]
fn every_reason_is_documented_and_no_other() {
    let contract = Contract::read();
    let listed = |pointer: &str| -> Vec<String> {
        let names = contract.at(pointer).as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let verdicts = listed("/components/schemas/InvalidReason/enum");
    let codes = listed("/components/schemas/Code/enum");
    assert_eq!(verdicts, InvalidReason::ALL.map(InvalidReason::as_str), "verdicts and their order");
    assert_eq!(codes, Code::ALL.map(Code::as_str));

    let mut shown = BTreeSet::new();
    for (_, example) in contract.examples() {
        let places = ["invalidReason", "errorReason", "error"];
        let reason = places.into_iter().find_map(|place| example.get(place));
        shown.extend(reason.and_then(Value::as_str).map(str::to_owned));
    }
    let introduction = contract.at("/info/description").as_str().unwrap();
    for reason in verdicts.iter().chain(&codes) {
        assert!(shown.contains(reason), "{reason} has no example");
        let rows = introduction.matches(&format!("| `{reason}` |")).count();
        assert_eq!(rows, 1, "{reason} has one row in the table");
    }
}

#[test]
fn every_example_fits_its_schema() {
    let contract = Contract::read();
    let examples = contract.examples();
    assert!(examples.len() > 60, "only {} examples were found", examples.len());
    for (schema, example) in examples {
        contract.check(&schema, &example, Keys::Any);
    }
}

#[test]
fn every_example_of_a_request_is_a_signed_payment() {
    let contract = Contract::read();
    let examples = contract.examples();
    let requests: Vec<_> =
        examples.iter().filter(|(_, example)| example.get("paymentPayload").is_some()).collect();
    assert_eq!(requests.len(), 2, "one for each version");
    for (_, example) in requests {
        let request = parse_request(&serde_json::to_vec(example).unwrap()).unwrap();
        let valid_before = request.payment.authorization.valid_before;
        let in_time = UnixTime::from_seconds(valid_before.to::<u64>().saturating_sub(30));
        terms(&request, in_time, &Factories::default()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_service_keeps_the_contract() {
    let contract = Contract::read();
    let world = World::stepped().await;
    let settings = [
        ("QUITTANCE__SETTLE__WAIT_MS", "300"),
        ("QUITTANCE__ONBOARDING__DOMAIN", "pay.example.com"),
        ("QUITTANCE__LIMITS__FAILED_ATTEMPTS_BURST", "1000"),
    ];
    let service = world.service_with(&settings).await;
    // Bodies that never arrive take five seconds; the rest is done meanwhile.
    let slow = tokio::spawn(stalled_bodies(service.url.clone(), service.api_key.clone()));

    probe_routes(&contract, &service).await;
    ask_for_what_is_public(&contract, &service).await;
    ask_and_be_refused(&contract, &world, &service).await;
    ask_wrongly(&contract, &world, &service).await;
    pay(&contract, &world, &service).await;
    pay_with_a_key(&contract, &world, &service).await;
    keep_merchants_and_keys(&contract, &world, &service).await;
    owners_sign(&contract, &world, &service).await;
    cap_what_is_taken(&contract, &world, &service).await;
    ask_while_the_chain_is_away(&contract, &world).await;
    ask_too_much(&contract, &world).await;
    for (path, answer) in slow.await.unwrap() {
        contract.check_answer("post", path, &answer, StatusCode::REQUEST_TIMEOUT);
    }
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

/// Documented methods are answered, and others are not.
async fn probe_routes(contract: &Contract, service: &Service) {
    for (path, documented) in contract.operations() {
        for method in METHODS {
            let upper: Method = method.to_uppercase().parse().unwrap();
            let answer = if contract.is_operations(&path) {
                let url = format!("{}{path}", service.operations_url);
                read(reqwest::Client::new().request(upper, url).send().await.unwrap()).await
            } else {
                service.send(upper, &filled_in(&path), &[], String::new()).await
            };
            let is_absent =
                [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&answer.status);
            // HEAD works wherever GET does (RFC 9110), and a document need not say so.
            let is_head_of_get = method == "head" && documented.contains("get");
            if documented.contains(method) || is_head_of_get {
                assert!(!is_absent, "{method} {path} is documented: {answer:?}");
            } else {
                assert!(is_absent, "{method} {path} is not documented: {answer:?}");
            }
            // HEAD has no body to be checked.
            if is_absent && method != "head" {
                let status = answer.status;
                let standing_for = documented.first().unwrap();
                contract.check_answer(standing_for, &path, &answer, status);
            }
        }
    }
    let answer = service.send(Method::GET, "/nothing", &[], String::new()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    contract.check_response("/components/responses/NotFound", &answer);
}

/// A path with something in the places of its parameters.
fn filled_in(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.starts_with('{') {
        true => "01900000-0000-7000-8000-000000000000",
        false => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

async fn ask_for_what_is_public(contract: &Contract, service: &Service) {
    for path in ["/supported", "/openapi.yaml"] {
        let named = [("X-Request-Id", "mine-1".to_owned())];
        let answer = service.send(Method::GET, path, &named, String::new()).await;
        assert_eq!(answer.header("x-request-id"), Some("mine-1"));
        contract.check_answer("get", path, &answer, StatusCode::OK);
        if path == "/openapi.yaml" {
            assert_eq!(answer.body, DOCUMENT);
        }
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        contract.check_answer("get", path, &service.operations(path).await, StatusCode::OK);
    }
}

async fn ask_and_be_refused(contract: &Contract, world: &World, service: &Service) {
    let valid = world.payment(0, 10_000);
    let answer = service.post("/verify", &valid).await;
    contract.check_answer("post", "/verify", &answer, StatusCode::OK);
    assert_eq!(answer.json()["isValid"], true, "{}", answer.body);

    let chain = &world.services.chain;
    let authorization = world.authorization(0, 10_000);
    let poor =
        quittance::domain::Authorization { payer: world.pauper().address(), ..authorization };
    let of_pauper = world.pauper().request(&poor).unwrap();
    let mut unsigned = valid.clone();
    unsigned["paymentPayload"]["payload"]["signature"] = json!("0x00");
    let mut elsewhere = valid;
    elsewhere["paymentRequirements"]["network"] = json!("eip155:1");
    assert_ne!(chain.chain_id.eip155(), 1);
    for (request, reason) in [
        (json!({}), InvalidReason::X402Version),
        (json!({ "x402Version": 2 }), InvalidReason::PaymentRequirements),
        (elsewhere, InvalidReason::Network),
        (unsigned, InvalidReason::Signature),
        (of_pauper, InvalidReason::InsufficientBalance),
    ] {
        for (path, key) in [("/verify", "invalidReason"), ("/settle", "errorReason")] {
            let answer = service.post(path, &request).await;
            contract.check_answer("post", path, &answer, StatusCode::OK);
            assert_eq!(answer.json()[key], reason.as_str(), "{path} {request}");
        }
    }
}

async fn ask_wrongly(contract: &Contract, world: &World, service: &Service) {
    let payment = world.payment(0, 10_000).to_string();
    let merchant = service.authorization();
    let bearer = |key: &ApiKey| ("Authorization", format!("Bearer {}", key.reveal()));
    let (operator, live) = (bearer(&world.keys.operator), bearer(&live_key(world).await));
    let text = ("Content-Type", "text/plain".to_owned());
    let bad_key = ("Idempotency-Key", "two words".to_owned());
    let too_long = " ".repeat(quittance::http::MAX_BODY_BYTES + 1);
    for path in ["/verify", "/settle"] {
        for (headers, body, status) in [
            (vec![], payment.as_str(), StatusCode::UNAUTHORIZED),
            (vec![("X-API-Key", "qk_test_0".to_owned())], &payment, StatusCode::UNAUTHORIZED),
            (vec![operator.clone()], &payment, StatusCode::FORBIDDEN),
            (vec![live.clone()], &payment, StatusCode::FORBIDDEN),
            (vec![merchant.clone()], "[]", StatusCode::BAD_REQUEST),
            (vec![merchant.clone()], "{", StatusCode::BAD_REQUEST),
            (vec![merchant.clone(), text.clone()], &payment, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (vec![merchant.clone()], &too_long, StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let answer = service.send(Method::POST, path, &headers, body.to_owned()).await;
            contract.check_answer("post", path, &answer, status);
        }
    }
    let bad_depth = ("Quittance-Wait-For", "deep".to_owned());
    for wrong in [bad_key, bad_depth] {
        let headers = [merchant.clone(), wrong];
        let answer = service.send(Method::POST, "/settle", &headers, payment.clone()).await;
        contract.check_answer("post", "/settle", &answer, StatusCode::BAD_REQUEST);
    }
}

/// Pending, then paid, then somebody else's.
async fn pay(contract: &Contract, world: &World, service: &Service) {
    let payment = world.payment(0, 10_000);
    for (expected, key) in [
        ("settlement_pending", "errorReason"),
        ("true", "success"),
        ("duplicate_settlement", "errorReason"),
    ] {
        let answer = service.post("/settle", &payment).await;
        contract.check_answer("post", "/settle", &answer, StatusCode::OK);
        let found = answer.json()[key].to_string();
        assert_eq!(found.trim_matches('"'), expected, "{}", answer.body);
        if expected == "settlement_pending" {
            mine_and_record(world).await;
        }
    }
}

/// With an `Idempotency-Key`: pending, then paid, then told again; and refused for another payment.
async fn pay_with_a_key(contract: &Contract, world: &World, service: &Service) {
    let payment = world.payment(1, 10_000);
    for (succeeds, replayed) in [(false, None), (true, None), (true, Some("true"))] {
        let answer = service.settle_with_key(&payment, "order-1").await;
        contract.check_answer("post", "/settle", &answer, StatusCode::OK);
        assert_eq!(answer.json()["success"], succeeds, "{}", answer.body);
        assert_eq!(answer.header("idempotent-replayed"), replayed);
        if !succeeds {
            mine_and_record(world).await;
        }
    }
    let answer = service.settle_with_key(&world.payment(2, 10_000), "order-1").await;
    contract.check_answer("post", "/settle", &answer, StatusCode::CONFLICT);
}

/// From the creation of a merchant to its end, and what is answered where it cannot be done.
async fn keep_merchants_and_keys(contract: &Contract, world: &World, service: &Service) {
    let operator = world.keys.operator.reveal();
    let ask = async |key: &str, (method, path): (&str, &str), id: &str, body: Value| {
        let path = path.replace("{merchantId}", id).replace("{keyId}", id);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let key = [("X-API-Key", key.to_owned())];
        service.send(method.to_uppercase().parse().unwrap(), &path, &key, body).await
    };
    let check =
        async |key: &str, (method, path): (&str, &str), id: &str, body: Value, status: u16| {
            let answer = ask(key, (method, path), id, body).await;
            contract.check_answer(method, path, &answer, StatusCode::from_u16(status).unwrap());
            answer.json()
        };
    const MERCHANT: &str = "/v1/merchants/{merchantId}";
    const KEY: &str = "/v1/keys/{keyId}";
    const ROTATE: &str = "/v1/keys/{keyId}/rotate";
    let (why, none) = (json!({ "reason": "a reason" }), Value::Null);
    let name = json!({ "name": "shop" });
    let shop = check(operator, ("post", "/v1/merchants"), "", name.clone(), 201).await;
    let id = shop["merchantId"].as_str().unwrap();
    check(operator, ("post", "/v1/merchants"), "", name, 409).await;
    check(operator, ("get", "/v1/merchants"), "", none.clone(), 200).await;
    check(operator, ("get", MERCHANT), id, none.clone(), 200).await;
    check(operator, ("patch", MERCHANT), id, json!({ "assets": "any" }), 200).await;
    let new = json!({ "merchantId": id, "mode": "test", "scopes": ["read", "manage"] });
    let made = check(operator, ("post", "/v1/keys"), "", new, 201).await;
    let (key, key_id) = (made["key"].as_str().unwrap(), made["keyId"].as_str().unwrap());
    for key in [key, operator] {
        check(key, ("get", "/v1/keys"), "", none.clone(), 200).await;
        check(key, ("get", "/v1/me"), "", none.clone(), 200).await;
    }
    let rotated = check(key, ("post", ROTATE), key_id, json!({}), 201).await;
    check(key, ("post", ROTATE), key_id, json!({}), 409).await;
    check(key, ("delete", KEY), rotated["keyId"].as_str().unwrap(), none.clone(), 200).await;
    check(operator, ("get", "/v1/audit"), "", none.clone(), 200).await;
    for verb in ["suspend", "resume", "close"] {
        let path = format!("{MERCHANT}/{verb}");
        check(operator, ("post", &path), id, why.clone(), 200).await;
        check(operator, ("post", &path), key_id, why.clone(), 404).await;
        check(operator, ("post", &path), id, json!({}), 400).await;
    }
    check(operator, ("post", &format!("{MERCHANT}/resume")), id, why, 409).await;

    // What is wrong in the same way everywhere.
    let too_long = Value::String(" ".repeat(quittance::http::MAX_BODY_BYTES));
    for (path, methods) in contract.operations() {
        let is_ours = ["/v1/me", "/v1/keys", "/v1/merchants", "/v1/audit"]
            .iter()
            .any(|ours| path.starts_with(ours));
        for method in methods.into_iter().filter(|_| is_ours) {
            let asked = (method, &*path);
            check("qk_test_0", asked, id, none.clone(), 401).await;
            if path != "/v1/me" {
                check(&service.api_key, asked, id, none.clone(), 403).await;
            }
            if ["post", "patch"].contains(&method) {
                check(operator, asked, id, json!({ "unknown": 1 }), 400).await;
                check(operator, asked, id, too_long.clone(), 413).await;
            }
        }
    }
}

/// Caps and floors are set, shown and removed.
async fn cap_what_is_taken(contract: &Contract, world: &World, service: &Service) {
    let operator = [("X-API-Key", world.keys.operator.reveal().to_owned())];
    let ask = async |method: Method, path: &str, template: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = service.send(method.clone(), path, &operator, body).await;
        let method = method.as_str().to_lowercase();
        contract.check_answer(&method, template, &answer, StatusCode::OK);
        answer.json()
    };
    let (caps, one, floor) = ("/v1/caps", "/v1/caps/{capId}", "/v1/floors/{chainId}/{asset}");
    let of_day =
        json!({ "subject": "merchant", "measure": "count", "period": "day", "limit": "9" });
    let cap = ask(Method::POST, caps, caps, of_day).await;
    let path = format!("/v1/caps/{}", cap["capId"].as_str().unwrap());
    ask(Method::GET, caps, caps, Value::Null).await;
    // Not the payer whose policy was revoked before.
    service.post("/settle", &world.payment(6, 10_000)).await;
    let used = ask(Method::GET, &path, one, Value::Null).await;
    assert_eq!(used["usage"].as_array().map(Vec::len), Some(1), "{used}");
    ask(Method::DELETE, &path, one, Value::Null).await;
    let answer = service.send(Method::GET, &path, &operator, String::new()).await;
    contract.check_answer("get", one, &answer, StatusCode::NOT_FOUND);
    let chain = &world.services.chain;
    let path = format!("/v1/floors/{}/{}", chain.chain_id, chain.usdc);
    ask(Method::PUT, &path, floor, json!({ "baseUnitsPerCoin": "1" })).await;
    ask(Method::GET, "/v1/floors", "/v1/floors", Value::Null).await;
    ask(Method::DELETE, &path, floor, Value::Null).await;
}

async fn ask_while_the_chain_is_away(contract: &Contract, world: &World) {
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    for method in ["eth_chainId", "eth_blockNumber", "eth_getBlockByNumber"] {
        proxy.set(method, Fault::DropBefore);
    }
    let settings = [("QUITTANCE__CHAINS__LOCAL__RPC_URL", proxy.url.as_str())];
    let service = Service::spawn(world, &settings).await;
    let answer = service.operations("/readyz").await;
    contract.check_answer("get", "/readyz", &answer, StatusCode::SERVICE_UNAVAILABLE);
    for path in ["/verify", "/settle"] {
        let answer = service.post(path, &world.payment(3, 10_000)).await;
        contract.check_answer("post", path, &answer, StatusCode::SERVICE_UNAVAILABLE);
    }
    let account = &world.services.chain.payers[6];
    let policy = Document::Policy(world.policy_of(account.address, 1));
    let answer = service.post_openly("/v1/policies", &signed(&policy, account)).await;
    contract.check_answer("post", "/v1/policies", &answer, StatusCode::SERVICE_UNAVAILABLE);
    service.stop().await;
}

/// Spending policies: registered, read, and everything that keeps them from it but trouble of ours.
async fn owners_sign(contract: &Contract, world: &World, service: &Service) {
    const PATH: &str = "/v1/policies";
    let check = |method: &str, path: &str, answer: &Answer, status: StatusCode| {
        contract.check_answer(method, path, answer, status);
    };
    let types = service.send(Method::GET, "/v1/policies/types", &[], String::new()).await;
    check("get", "/v1/policies/types", &types, StatusCode::OK);
    let [account, stranger] = [4, 5].map(|n| world.services.chain.payers[n].clone());
    let mut policy = world.policy_of(account.address, 1);
    policy.sessions = vec![session(account.address)];
    let money = policy.subject;
    let policy = Document::Policy(policy);
    for (signer, status) in [
        (&stranger, StatusCode::FORBIDDEN),
        (&account, StatusCode::CREATED),
        (&account, StatusCode::CONFLICT),
    ] {
        let answer = service.post_openly(PATH, &signed(&policy, signer)).await;
        check("post", PATH, &answer, status);
    }
    let reading = "/v1/policies/read";
    let now = support::now().seconds();
    let mut elsewhere = money;
    elsewhere.asset = stranger.address;
    for (subject, signer, status) in [
        (money, &account, StatusCode::OK),
        (money, &stranger, StatusCode::FORBIDDEN),
        (elsewhere, &account, StatusCode::NOT_FOUND),
    ] {
        check("post", reading, &service.read_policy(subject, now, signer).await, status);
    }
    let ending = Document::Revocation(world.ending_of(account.address, 2));
    service.register(&ending, &account).await;
    check("post", reading, &service.read_policy(money, now, &account).await, StatusCode::OK);
    let text = ("Content-Type", "text/plain".to_owned());
    let too_long = " ".repeat(quittance::http::MAX_BODY_BYTES + 1);
    for path in [PATH, reading] {
        for (headers, body, status) in [
            (vec![], "{}", StatusCode::BAD_REQUEST),
            (vec![text.clone()], "{}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (vec![], &too_long, StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let answer = service.send(Method::POST, path, &headers, body.to_owned()).await;
            check("post", path, &answer, status);
        }
    }
    let pattern = "/v1/policies/{network}/{account}/{asset}";
    let bearer = |key: &ApiKey| vec![("Authorization", format!("Bearer {}", key.reveal()))];
    let (operator, merchant) = (&world.keys.operator, &world.keys.merchant);
    for (asset, headers, status) in [
        (money.asset.to_string(), bearer(operator), StatusCode::OK),
        (stranger.address.to_string(), bearer(operator), StatusCode::NOT_FOUND),
        ("usdc".to_owned(), bearer(operator), StatusCode::BAD_REQUEST),
        (money.asset.to_string(), bearer(merchant), StatusCode::FORBIDDEN),
        (money.asset.to_string(), vec![], StatusCode::UNAUTHORIZED),
    ] {
        let path = format!("{PATH}/{}/{}/{asset}", money.chain_id, money.account);
        let answer = service.send(Method::GET, &path, &headers, String::new()).await;
        check("get", pattern, &answer, status);
    }
}

/// Of a merchant, and then from an address.
async fn ask_too_much(contract: &Contract, world: &World) {
    let limit = |of: &str| {
        [("PER_SECOND", "1"), ("BURST", "3")]
            .map(|(what, n)| (format!("QUITTANCE__LIMITS__{of}_{what}"), n.to_owned()))
    };
    let limits = [limit("VERIFY"), limit("SETTLE"), limit("READ")].concat();
    let settings: Vec<_> = limits.iter().map(|(key, n)| (&**key, &**n)).collect();
    let service = Service::spawn(world, &settings).await;
    let merchant = [service.authorization()];
    let asked = [("post", "/verify"), ("post", "/settle"), ("get", "/v1/me")];
    for (method, path) in asked {
        let upper: Method = method.to_uppercase().parse().unwrap();
        let answer = loop {
            let answer = service.send(upper.clone(), path, &merchant, "{}".to_owned()).await;
            if answer.status != StatusCode::OK {
                break answer;
            }
            contract.check_answer(method, path, &answer, StatusCode::OK);
        };
        contract.check_answer(method, path, &answer, StatusCode::TOO_MANY_REQUESTS);
        assert!(answer.header("ratelimit").is_some(), "{answer:?}");
    }
    service.stop().await;

    let limits = limit("ADDRESS");
    let settings: Vec<_> = limits.iter().map(|(key, n)| (&**key, &**n)).collect();
    let service = Service::spawn(world, &settings).await;
    for (method, path) in asked.into_iter().chain([("get", "/supported"), ("get", "/openapi.yaml")])
    {
        let upper: Method = method.to_uppercase().parse().unwrap();
        let answer = loop {
            let answer = service.send(upper.clone(), path, &merchant, "{}".to_owned()).await;
            if answer.status != StatusCode::OK {
                break answer;
            }
        };
        contract.check_answer(method, path, &answer, StatusCode::TOO_MANY_REQUESTS);
    }
    service.stop().await;
}

/// The answers to bodies of which one byte of two arrives.
async fn stalled_bodies(url: String, api_key: String) -> Vec<(&'static str, Answer)> {
    let host = url.trim_start_matches("http://");
    let mut answers = Vec::new();
    let mut open = Vec::new();
    for path in ["/verify", "/settle", "/v1/policies", "/v1/policies/read"] {
        let mut stream = TcpStream::connect(host).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        open.push((path, stream));
    }
    for (path, mut stream) in open {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes));
        read.await.expect("the connection is closed after the answer").unwrap();
        answers.push((path, plain_answer(&String::from_utf8(bytes).unwrap())));
    }
    answers
}

fn plain_answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: HeaderMap = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        })
        .collect();
    Answer { status, headers, body: body.to_owned() }
}

async fn read(response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, body: response.text().await.unwrap() }
}

async fn mine_and_record(world: &World) {
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world
        .until("select count(*) from settlement where status in ('claimed', 'submitted')", 0)
        .await;
}

/// A live key of the merchant, which a test chain refuses.
async fn live_key(world: &World) -> ApiKey {
    let merchant_id = sqlx::query_scalar("select merchant_id from merchant limit 1");
    let merchant_id: uuid::Uuid = merchant_id.fetch_one(&world.books).await.unwrap();
    let pepper = Pepper::new(world.services.settings.keys.pepper().unwrap());
    let new = NewKey {
        owner: KeyOwner::Merchant(MerchantId::from_uuid(merchant_id)),
        mode: KeyMode::Live,
        scopes: Scopes::OF_MERCHANTS,
        name: None,
        lifetime_seconds: None,
    };
    let keys = ApiKeys::new(world.books.clone(), pepper);
    keys.create(&Actor::service("test"), Authority::Operator, &new).await.unwrap().0
}

/// The paths that `src/http` registers.
fn routes_in_source() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => routes.extend(routes_in(&fs::read_to_string(&path).unwrap())),
            }
        }
    }
    routes
}

fn routes_in(source: &str) -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    let calls =
        ["question(", "document(", "resource(", "web::resource(", ".route(\"", "web::scope("];
    for call in calls {
        for (at, _) in source.match_indices(call) {
            // The path is the first argument, on the same line or on the next one.
            let arguments = source.split_at(at + call.trim_end_matches('"').len()).1.trim_start();
            let Some(quoted) = arguments.strip_prefix('"') else { continue };
            let quoted = quoted.split('"').next().unwrap();
            assert!(call != "web::scope(" || quoted.is_empty(), "this search knows no scopes");
            routes.extend((!quoted.is_empty()).then(|| quoted.to_owned()));
        }
    }
    routes
}

/// The document, as JSON.
struct Contract {
    document: Value,
}

/// Which keys an object may have besides the documented ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Any,
    DocumentedOnly,
}

impl Contract {
    fn read() -> Self {
        Self { document: parsed(DOCUMENT) }
    }

    fn at(&self, pointer: &str) -> &Value {
        self.document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in the document"))
    }

    /// Where a pointer leads, references followed.
    fn resolved(&self, pointer: &str) -> (String, &Value) {
        let value = self.at(pointer);
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.resolved(reference.trim_start_matches('#')),
            None => (pointer.to_owned(), value),
        }
    }

    /// Each path, with its documented methods.
    fn operations(&self) -> Vec<(String, BTreeSet<&'static str>)> {
        let methods =
            |item: &Value| METHODS.into_iter().filter(|m| item.get(m).is_some()).collect();
        let paths = self.at("/paths").as_object().unwrap();
        paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
    }

    /// Whether a path is on the operations port.
    fn is_operations(&self, path: &str) -> bool {
        self.at("/paths")[path].get("servers").is_some()
    }

    /// Every example in the document, with the pointer to its schema.
    fn examples(&self) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        self.find_examples("", &self.document, &mut found);
        found
    }

    fn find_examples(&self, pointer: &str, value: &Value, found: &mut Vec<(String, Value)>) {
        let schema = format!("{pointer}/schema");
        match value {
            Value::Object(members) => {
                found.extend(
                    members.get("example").map(|example| (schema.clone(), example.clone())),
                );
                match members.get("examples") {
                    // Beside a schema: examples with a name. Within one: bare values.
                    Some(Value::Object(named)) => found.extend(
                        named.values().map(|example| (schema.clone(), example["value"].clone())),
                    ),
                    Some(Value::Array(bare)) => {
                        found.extend(bare.iter().map(|value| (pointer.to_owned(), value.clone())));
                    }
                    _ => (),
                }
                for (key, member) in members.iter().filter(|(key, _)| !key.starts_with("example")) {
                    self.find_examples(&format!("{pointer}/{}", escaped(key)), member, found);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.find_examples(&format!("{pointer}/{index}"), item, found);
                }
            }
            _ => (),
        }
    }

    /// Holds a value against the schema at `pointer`.
    fn check(&self, pointer: &str, value: &Value, keys: Keys) {
        // The document around the reference, so that references of the schema lead somewhere.
        let mut schema = self.document.clone();
        // Braces of paths are none of the characters that a reference may hold (RFC 3986).
        let reference = pointer.replace('{', "%7B").replace('}', "%7D");
        schema["$ref"] = json!(format!("#{reference}"));
        if keys == Keys::DocumentedOnly {
            schema["unevaluatedProperties"] = json!(false);
        }
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{value}\ndoes not fit {pointer}:\n{}", errors.join("\n"));
    }

    /// Holds an answer against what is documented for its operation and status.
    fn check_answer(&self, method: &str, path: &str, answer: &Answer, expected: StatusCode) {
        let asked = format!("{method} {path}");
        assert_eq!(answer.status, expected, "{asked}: {}", answer.body);
        let operation = format!("/paths/{}/{method}", escaped(path));
        self.check_response(&format!("{operation}/responses/{}", expected.as_str()), answer);
    }

    fn check_response(&self, pointer: &str, answer: &Answer) {
        let (pointer, response) = self.resolved(pointer);
        let none = Map::new();
        let documented = response.get("headers").and_then(Value::as_object).unwrap_or(&none);
        for name in answer.headers.keys().map(HeaderName::as_str) {
            let is_known = documented.keys().any(|known| known.eq_ignore_ascii_case(name));
            assert!(is_known || USUAL_HEADERS.contains(&name), "{pointer}: header {name}");
        }
        for name in documented.keys() {
            let (header, details) = self.resolved(&format!("{pointer}/headers/{name}"));
            match answer.header(name) {
                Some(text) => {
                    let is_number = details["schema"]["type"] == "integer";
                    let value = if is_number { text.parse().unwrap() } else { json!(text) };
                    self.check(&format!("{header}/schema"), &value, Keys::Any);
                }
                None => assert_ne!(details["required"], true, "{pointer}: {name} is missing"),
            }
        }
        let media_type = answer.header("content-type").unwrap().split(';').next().unwrap();
        let schema = format!("{pointer}/content/{}/schema", escaped(media_type));
        let body = match media_type {
            "application/json" => answer.json(),
            "application/yaml" => parsed(&answer.body),
            _ => json!(answer.body),
        };
        self.check(&schema, &body, Keys::DocumentedOnly);
    }
}

/// A key as JSON pointers spell it.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn parsed(yaml: &str) -> Value {
    let [document] = YamlLoader::load_from_str(yaml).unwrap().try_into().unwrap();
    json_of(&document)
}

fn json_of(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => json!(value),
        Yaml::Integer(value) => json!(value),
        // Numbers above an `i64` arrive here too; JSON reads both.
        Yaml::Real(text) => serde_json::from_str(text).unwrap(),
        Yaml::String(text) => json!(text),
        Yaml::Array(items) => items.iter().map(json_of).collect(),
        Yaml::Hash(members) => {
            let member = |(key, value): (&Yaml, &Yaml)| {
                (key.as_str().expect("every key is text").to_owned(), json_of(value))
            };
            Value::Object(members.iter().map(member).collect())
        }
        Yaml::Alias(_) | Yaml::BadValue => panic!("unreadable YAML: {yaml:?}"),
    }
}
