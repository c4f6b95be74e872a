//! API keys: what each may do, whose they are, and what comes of wrong ones.

use quittance::{domain::KeyMode, merchants::ApiKey};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    callers::{quittance, quittance_with, stderr, stdout},
    desk::{ask, new_key, printed, refused, text, told},
    payments::AMOUNT,
    support::{Answer, Service, World},
};

fn unknown_key() -> String {
    ApiKey::generate(KeyMode::Test).reveal().to_owned()
}

/// What a key that nobody holds, or that is none, is answered.
async fn unauthorized(service: &Service, key: &str) -> String {
    refused(service, key, ("GET", "/v1/me", Value::Null), 401, "unauthorized").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_key_is_told_apart_without_the_database() {
    let world = World::automine().await;
    let service = world.service().await;
    let good = world.keys.merchant.reveal();
    let at = good.len() - 9;
    let other = if good.as_bytes()[at] == b'0' { "1" } else { "0" };
    let mut mistyped = good.to_owned();
    mistyped.replace_range(at..=at, other);
    assert!(unauthorized(&service, &unknown_key()).await.contains("nobody holds"));
    world.stop_postgres().await;
    for wrong in [&*mistyped, &good[..good.len() - 1], "qk_test_", "sk_test_0"] {
        assert!(unauthorized(&service, wrong).await.contains("mistyped"), "{wrong}");
    }
    let asked = ("GET", "/v1/me", Value::Null);
    refused(&service, &unknown_key(), asked, 503, "service_unavailable").await;
    service.kill().await;
}

/// Every route that takes a key, with the scope that it takes and whose key: `m`erchants', `o`perators'
/// or `b`oth.
fn routes(
    merchant_id: &str,
    payment: &Value,
) -> Vec<(&'static str, String, Value, &'static str, char)> {
    let of = |rest: &str| format!("/v1/merchants/{merchant_id}{rest}");
    // Nothing of it is found: what is looked for comes after what is allowed.
    let key = "/v1/keys/01900000-0000-7000-8000-000000000000";
    vec![
        ("POST", "/verify".to_owned(), payment.clone(), "verify", 'm'),
        ("POST", "/settle".to_owned(), payment.clone(), "settle", 'm'),
        ("GET", "/v1/me".to_owned(), Value::Null, "", 'b'),
        ("GET", "/v1/keys".to_owned(), Value::Null, "manage", 'b'),
        ("POST", "/v1/keys".to_owned(), json!({ "scopes": [] }), "manage", 'b'),
        ("DELETE", key.to_owned(), Value::Null, "manage", 'b'),
        ("POST", format!("{key}/rotate"), json!({}), "manage", 'b'),
        ("GET", "/v1/merchants".to_owned(), Value::Null, "read", 'o'),
        ("POST", "/v1/merchants".to_owned(), json!({}), "manage", 'o'),
        ("GET", of(""), Value::Null, "read", 'o'),
        ("PATCH", of(""), json!({ "waitFor": "included" }), "manage", 'o'),
        ("POST", of("/suspend"), json!({}), "manage", 'o'),
        ("POST", of("/resume"), json!({}), "manage", 'o'),
        ("POST", of("/close"), json!({}), "manage", 'o'),
        ("GET", "/v1/audit".to_owned(), Value::Null, "read", 'o'),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_what_its_scopes_name_and_nothing_else() {
    let world = World::automine().await;
    let service = world.service().await;
    let merchant = printed(&world, &["merchant", "show", "dev merchant"]).await;
    let payment = world.payment(0, AMOUNT);
    let routes = routes(text(&merchant, "merchantId"), &payment);
    let mut keys = Vec::new();
    for scope in ["verify", "settle", "read", "manage"] {
        keys.push((new_key(&world, "dev merchant", &["--scopes", scope]).await.0, scope, 'm'));
    }
    for scope in ["read", "manage"] {
        let made = printed(&world, &["key", "create", "--operator", "--scopes", scope]).await;
        keys.push((text(&made, "key").to_owned(), scope, 'o'));
    }
    for (key, scope, holder) in &keys {
        for (method, path, body, needed, takes) in &routes {
            let answer = ask(&service, key, method.parse().unwrap(), path, body.clone()).await;
            let may = (needed == scope || needed.is_empty()) && [*holder, 'b'].contains(takes);
            let what = format!("{holder} {scope} at {method} {path}: {}", answer.body);
            assert_eq!(answer.status == 403, !may, "{what}");
            assert!(![401, 429, 500, 503].contains(&answer.status.as_u16()), "{what}");
            if !may {
                let code = answer.json();
                let code = ["invalidReason", "errorReason", "error"]
                    .into_iter()
                    .find_map(|place| code[place].as_str().map(str::to_owned));
                assert_eq!(code.as_deref(), Some("forbidden"), "{what}");
            }
        }
    }
    for (scopes, status) in [("verify", 64), ("read,settle", 64), ("admin", 64), ("", 64)] {
        let create = ["key", "create", "--operator", "--scopes", scopes];
        let output = quittance(&world, &create).await;
        assert_eq!(output.status.code(), Some(status), "an operator's key for {scopes:?}");
    }
    service.stop().await;
    world.stop().await;
}

/// Presents a key as if through a proxy that was asked from `address`.
async fn from(service: &Service, address: &str, key: &str) -> Answer {
    let headers = [("X-API-Key", key.to_owned()), ("X-Forwarded-For", address.to_owned())];
    service.send(Method::GET, "/v1/me", &headers, String::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempts_are_limited_per_address() {
    let world = World::automine().await;
    let behind = [("QUITTANCE__SERVER__N_TRUSTED_PROXIES", "1")];
    let (proxied, direct) = tokio::join!(world.service_with(&behind), world.service());
    let good = world.keys.merchant.reveal();
    let (unmet, _) = new_key(&world, "dev merchant", &[]).await;
    assert_eq!(from(&proxied, "198.51.100.1", good).await.status, 200);
    // Of whatever kind they are, and of whatever key: ten at once.
    for n in 0..10 {
        let key = if n % 2 == 0 { unknown_key() } else { format!("nonsense {n}") };
        assert_eq!(from(&proxied, "198.51.100.1", &key).await.status, 401, "failure {n}");
    }
    for key in [&unknown_key(), "nonsense", &unmet] {
        let answer = from(&proxied, "198.51.100.1", key).await;
        assert_eq!(answer.status, 429, "{}", answer.body);
        assert_eq!(answer.json()["error"], "rate_limit_exceeded");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=6).contains(&wait), "{wait}");
    }
    for (what, address, key, status) in [
        ("a key that was good here", "198.51.100.1", good, 200),
        ("another address", "198.51.100.2", &*unmet, 200),
        ("what the caller wrote itself", "198.51.100.2, 198.51.100.1", "nonsense", 429),
        ("what the proxy wrote", "198.51.100.1, 198.51.100.2", "nonsense", 401),
    ] {
        let answer = from(&proxied, address, key).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
    }
    // Of an IPv6 address counts the network.
    for n in 0..11 {
        let answer = from(&proxied, &format!("2001:db8::{n}"), "nonsense").await;
        assert_eq!(answer.status, if n < 10 { 401 } else { 429 }, "{n}");
    }
    assert_eq!(from(&proxied, "2001:db8:0:1::", "nonsense").await.status, 401);
    // Without a trusted proxy, the header is anybody's word.
    for n in 0..11 {
        let answer = from(&direct, &format!("198.51.100.{n}"), "nonsense").await;
        assert_eq!(answer.status, if n < 10 { 401 } else { 429 }, "{n}");
    }
    let no_key = direct.send(Method::GET, "/v1/me", &[], String::new()).await;
    assert_eq!(no_key.status, 401, "who presents nothing guesses nothing");
    proxied.stop().await;
    direct.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchants_key_makes_no_key_that_may_more_than_itself() {
    let world = World::automine().await;
    let service = world.service().await;
    let (key, _) = new_key(&world, "dev merchant", &["--scopes", "verify,manage"]).await;
    let operator = world.keys.operator.reveal();
    let create = |body: Value| ("POST", "/v1/keys", body);
    for (beyond, said) in [
        (json!({ "scopes": ["settle"] }), "scopes"),
        (json!({ "scopes": ["verify", "read"] }), "scopes"),
        (json!({ "mode": "live" }), "live"),
    ] {
        let message = refused(&service, &key, create(beyond), 403, "forbidden").await;
        assert!(message.contains(said), "{message}");
    }
    for (wrong, named) in [
        (json!({ "scope": ["verify"] }), "scope"),
        (json!({ "scopes": ["admin"] }), "admin"),
        (json!({ "scopes": [] }), "scopes"),
        (json!({ "mode": "prod" }), "prod"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "a\u{0}" }), "name"),
        (json!({ "expiresInSeconds": 0 }), "expiresInSeconds"),
        (json!({ "expiresInSeconds": 315_360_001_i64 }), "expiresInSeconds"),
        (json!([]), "struct"),
    ] {
        let said = refused(&service, &key, create(wrong), 400, "invalid_request").await;
        assert!(said.contains(named), "{said}");
    }
    let made = told(&service, &key, create(json!({ "name": "ü".repeat(200) })), 201).await;
    assert_eq!((&made["scopes"], &made["mode"]), (&json!(["verify"]), &json!("test")));
    let me = told(&service, text(&made, "key"), ("GET", "/v1/me", Value::Null), 200).await;
    assert_eq!(me["key"]["keyId"], made["keyId"]);
    let without_manage = text(&made, "key");
    refused(&service, without_manage, create(json!({})), 403, "forbidden").await;

    // An operator says whose key it is, and for what.
    let merchant_id = text(&me["merchant"], "merchantId");
    for (wrong, named) in [
        (json!({ "mode": "test" }), "merchantId"),
        (json!({ "merchantId": merchant_id }), "mode"),
        (json!({ "merchantId": "dev", "mode": "test" }), "merchantId"),
    ] {
        let said = refused(&service, operator, create(wrong), 400, "invalid_request").await;
        // Of a text that is no id, the parser does not say where it stands.
        assert!(said.contains(named) || said.contains("UUID"), "{said}");
    }
    let all = json!({ "merchantId": merchant_id, "mode": "live",
        "scopes": ["verify", "settle", "read", "manage"], "expiresInSeconds": 315_360_000 });
    let made = told(&service, operator, create(all), 201).await;
    assert_eq!(made["scopes"].as_array().unwrap().len(), 4, "{made}");
    let nobody = json!({ "merchantId": uuid::Uuid::now_v7(), "mode": "test" });
    refused(&service, operator, create(nobody), 404, "not_found").await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_sees_and_reaches_its_own_keys_only() {
    let world = World::automine().await;
    let service = world.service().await;
    printed(&world, &["merchant", "create", "other"]).await;
    let (own, own_id) = new_key(&world, "dev merchant", &["--scopes", "manage"]).await;
    let (_, others_id) = new_key(&world, "other", &[]).await;
    let others = printed(&world, &["merchant", "show", "other"]).await;
    let others = text(&others, "merchantId");
    let operators = printed(&world, &["key", "list", "--operator"]).await;
    let operators_id = text(&operators[0], "keyId");

    let listed = told(&service, &own, ("GET", "/v1/keys", Value::Null), 200).await;
    let ids: Vec<&str> =
        listed["keys"].as_array().unwrap().iter().map(|k| text(k, "keyId")).collect();
    assert!(ids.contains(&&*own_id) && ids.len() == 2, "{listed}");
    for key in listed["keys"].as_array().unwrap() {
        assert!(key.get("key").is_none() && text(key, "label").len() == 14, "{key}");
    }
    for id in [&*others_id, operators_id, "01900000-0000-7000-8000-000000000000", "1"] {
        let (one, rotate) = (format!("/v1/keys/{id}"), format!("/v1/keys/{id}/rotate"));
        refused(&service, &own, ("DELETE", &one, Value::Null), 404, "not_found").await;
        refused(&service, &own, ("POST", &rotate, json!({})), 404, "not_found").await;
    }
    let named = format!("/v1/keys?merchantId={others}");
    refused(&service, &own, ("GET", &named, Value::Null), 404, "not_found").await;
    let create = ("POST", "/v1/keys", json!({ "merchantId": others }));
    refused(&service, &own, create, 404, "not_found").await;
    assert_eq!(world.count("select count(*) from api_key where revoked_at is not null").await, 0);
    let operator = world.keys.operator.reveal();
    let listed = told(&service, operator, ("GET", &named, Value::Null), 200).await;
    assert_eq!(text(&listed["keys"][0], "keyId"), others_id);
    told(&service, &own, ("DELETE", &format!("/v1/keys/{own_id}"), Value::Null), 200).await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_in_pages_and_end_at_a_hundred() {
    let world = World::automine().await;
    let service = world.service().await;
    let operator = world.keys.operator.reveal();
    let merchant = printed(&world, &["merchant", "show", "dev merchant"]).await;
    let merchant_id = text(&merchant, "merchantId");
    let revoked = new_key(&world, "dev merchant", &[]).await.1;
    printed(&world, &["key", "revoke", &revoked]).await;
    // With the harness's, 99 that work.
    sqlx::query(
        "insert into api_key (api_key_id, merchant_id, role, mode, label, key_hash, scopes)
         select gen_random_uuid(), $1::uuid, 'merchant', 'test', 'qk_test_', sha256(n::text::bytea),
             '{read}' from generate_series(1, 98) as n",
    )
    .bind(merchant_id.parse::<uuid::Uuid>().unwrap())
    .execute(&world.books)
    .await
    .unwrap();
    let create = || ("POST", "/v1/keys", json!({ "merchantId": merchant_id, "mode": "test" }));
    let last = told(&service, operator, create(), 201).await;
    let said = refused(&service, operator, create(), 409, "conflict").await;
    assert!(said.contains("100"), "{said}");
    let path = format!("/v1/keys/{}", text(&last, "keyId"));
    told(&service, operator, ("DELETE", &path, Value::Null), 200).await;
    told(&service, operator, create(), 201).await;

    let (mut ids, mut after, mut n_pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/v1/keys?merchantId={merchant_id}&limit=40{after}");
        let page = told(&service, operator, ("GET", &path, Value::Null), 200).await;
        ids.extend(page["keys"].as_array().unwrap().iter().map(|k| text(k, "keyId").to_owned()));
        n_pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!((ids.len(), n_pages), (102, 3));
    assert!(ids.is_sorted_by(|a, b| a < b), "every key once");
    for (query, status) in [
        ("limit=1", 200),
        ("limit=100", 200),
        ("limit=0", 400),
        ("limit=101", 400),
        ("page=2", 400),
    ] {
        let path = format!("/v1/keys?{query}");
        let answer = ask(&service, operator, Method::GET, &path, Value::Null).await;
        assert_eq!(answer.status, status, "{query}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_at_the_command_line_too() {
    let world = World::automine().await;
    let further = ["--name", "till", "--expires-in", "90d", "--scopes", "read, manage"];
    let (key, id) = new_key(&world, "dev merchant", &further).await;
    let nobody = uuid::Uuid::now_v7().to_string();
    for (arguments, status, said) in [
        (&["list", "--merchant", "dev merchant"][..], 0, "read,manage  till"),
        (&["list", "--operator"], 0, "never used  works"),
        (&["list"], 64, "--merchant"),
        (&["list", "--merchant", "nobody"], 1, "nobody"),
        (&["create", "--operator", "--expires-in", "0s"], 64, "0 seconds"),
        (&["create", "--operator", "--expires-in", "soon"], 64, "duration"),
        (&["create", "--operator", "--name", ""], 64, "--name"),
        (&["rotate", &nobody], 1, "there is no such key"),
        (&["rotate", "dev merchant"], 64, "KEY_ID"),
        (&["rotate", &id, "--overlap", "1h"], 0, "only time"),
        (&["rotate", &id], 1, "took this one's place"),
        (&["list", "--merchant", "dev merchant"], 0, "works until"),
        (&["revoke", &id], 0, "is revoked"),
        (&["revoke", &id], 0, "is revoked"),
        (&["revoke", &nobody], 1, "there is no such key"),
        (&["list", "--merchant", "dev merchant"], 0, "revoked 20"),
    ] {
        let output = quittance(&world, &[&["key"], arguments].concat()).await;
        let told = format!("{}{}", stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
        assert!(!told.contains(&key), "{arguments:?} shows a key again");
    }
    let mut settings = world.environment();
    settings.retain(|(name, _)| *name != "QUITTANCE__KEYS__PEPPER");
    for (command, status) in [
        (&["serve"][..], 64),
        (&["key", "create", "--operator"], 64),
        (&["key", "list", "--operator"], 64),
        (&["merchant", "list"], 0),
        (&["audit"], 0),
    ] {
        let output = quittance_with(&settings, command).await;
        assert_eq!(output.status.code(), Some(status), "{command:?}: {}", stderr(&output));
        let says_how = stderr(&output).contains("openssl rand -hex 32");
        assert_eq!(says_how, status == 64, "{command:?}: {}", stderr(&output));
    }
    // Another pepper knows none of the keys.
    let other = ("QUITTANCE__KEYS__PEPPER", "another pepper of at least 32 characters");
    let service = world.service_with(&[other]).await;
    let said = unauthorized(&service, world.keys.merchant.reveal()).await;
    assert!(said.contains("nobody holds"), "{said}");
    service.stop().await;
    world.stop().await;
}
