//! Who may ask, and that keys stay secret.

use alloy::hex;
use quittance::{domain::KeyMode, merchants::ApiKey};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    callers::{assert_shape, key, merchant_key, reason},
    desk::{new_key, text, told},
    payments::{AMOUNT, signature},
    support::{Answer, Service, World},
};

const PATHS: [&str; 2] = ["/verify", "/settle"];

async fn ask(service: &Service, path: &str, headers: &[(&str, String)], body: String) -> Answer {
    service.send(Method::POST, path, headers, body).await
}

fn assert_denied(path: &str, answer: &Answer, status: u16, expected: &str, what: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what} at {path}: {}", answer.body);
    assert_shape(path, &answer.json());
    assert_eq!(reason(&answer.json()), Some(expected), "{what} at {path}");
    let challenge = (status == 401).then_some("Bearer");
    assert_eq!(answer.header("www-authenticate"), challenge, "{what} at {path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_merchants_key_may_ask_about_payments() {
    let world = World::automine().await;
    // tests/api/keys.rs tells what comes of so many.
    let service = world.service_with(&[("QUITTANCE__LIMITS__FAILED_ATTEMPTS_BURST", "1000")]).await;
    let good = world.keys.merchant.reveal().to_owned();
    let payment = world.payment(0, AMOUNT).to_string();
    let mut altered = good.clone();
    let last = if altered.ends_with('0') { "1" } else { "0" };
    altered.replace_range(altered.len() - 1.., last);
    let header = |name, value: &str| vec![(name, value.to_owned())];
    for (what, headers) in [
        ("no key", Vec::new()),
        ("an empty header", header("Authorization", "")),
        ("the scheme alone", header("Authorization", "Bearer")),
        ("an empty key", header("Authorization", "Bearer ")),
        ("an altered key", header("Authorization", &format!("Bearer {altered}"))),
        ("a key in capitals", header("Authorization", &format!("Bearer {}", good.to_uppercase()))),
        ("the beginning of a key", header("Authorization", &format!("Bearer {}", &good[..14]))),
        ("no scheme", header("Authorization", &good)),
        ("Basic", header("Authorization", "Basic dXNlcjpwYXNz")),
        ("Basic with a key", header("Authorization", &format!("Basic {good}"))),
        ("an altered key in X-API-Key", header("X-API-Key", &altered)),
        ("a scheme in X-API-Key", header("X-API-Key", &format!("Bearer {good}"))),
        ("a very long key", header("Authorization", &format!("Bearer {}", "x".repeat(4_000)))),
        ("SQL", header("X-API-Key", "' or true --")),
    ] {
        for path in PATHS {
            let answer = ask(&service, path, &headers, payment.clone()).await;
            assert_denied(path, &answer, 401, "unauthorized", what);
            // Who does not say who it is learns nothing about its body.
            let answer = ask(&service, path, &headers, "not JSON".to_owned()).await;
            assert_denied(path, &answer, 401, "unauthorized", what);
        }
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    for (what, headers) in [
        ("Bearer", header("Authorization", &format!("Bearer {good}"))),
        ("lower case", header("authorization", &format!("bearer {good}"))),
        ("more spaces", header("Authorization", &format!("BEARER   {good} "))),
        ("X-API-Key", header("X-API-Key", &good)),
        ("x-api-key", header("x-api-key", &good)),
        (
            "X-API-Key beside another scheme",
            [header("Authorization", "Basic dXNlcjpwYXNz"), header("X-API-Key", &good)].concat(),
        ),
    ] {
        let answer = ask(&service, "/verify", &headers, payment.clone()).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        assert_eq!(answer.json()["isValid"], json!(true), "{what}: {}", answer.body);
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_where_it_belongs() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT).to_string();
    let live = key(&world, &["--merchant", "dev merchant"]).await;
    assert!(live.starts_with("qk_live_"), "{live}");
    for (what, key) in
        [("an operator's key", world.keys.operator.reveal()), ("a live key on a test chain", &live)]
    {
        for path in PATHS {
            let headers = [("X-API-Key", key.to_owned())];
            let answer = ask(&service, path, &headers, payment.clone()).await;
            assert_denied(path, &answer, 403, "forbidden", what);
        }
    }
    let other = merchant_key(&world, "other").await;
    assert!(other.starts_with("qk_test_"));
    let headers = [("X-API-Key", other)];
    let answer = ask(&service, "/verify", &headers, payment.clone()).await;
    assert_eq!(answer.json()["isValid"], json!(true));

    // The same chain, declared to hold real money: the other way round.
    let real = world.service_with(&[("QUITTANCE__CHAINS__LOCAL__TEST", "false")]).await;
    for path in PATHS {
        let answer = ask(&real, path, &[real.authorization()], payment.clone()).await;
        assert_denied(path, &answer, 403, "forbidden", "a test key on a real chain");
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    let headers = [("X-API-Key", live)];
    let answer = ask(&real, "/verify", &headers, payment).await;
    assert_eq!(answer.json()["isValid"], json!(true), "{}", answer.body);
    real.stop().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_within_seconds() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT);
    let second = [("X-API-Key", key(&world, &["--merchant", "dev merchant", "--test"]).await)];
    for headers in [&[service.authorization()], &second] {
        assert_eq!(ask(&service, "/verify", headers, payment.to_string()).await.status, 200);
    }
    let revoke = "update api_key set revoked_at = now() where api_key_id =
        (select api_key_id from api_key where role = 'merchant' order by created_at limit 1)";
    sqlx::query(revoke).execute(&world.books).await.unwrap();
    let revoked_at = std::time::Instant::now();
    // Asked all the time, so that being used does not keep a key alive.
    let answer = loop {
        let answer = service.post("/verify", &payment).await;
        if answer.status != 200 {
            break answer;
        }
        assert!(revoked_at.elapsed().as_secs() < 3, "the key is believed for too long");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_denied("/verify", &answer, 401, "unauthorized", "a revoked key");
    let answer = service.post("/settle", &payment).await;
    assert_denied("/settle", &answer, 401, "unauthorized", "a revoked key");
    let answer = ask(&service, "/settle", &second, payment.to_string()).await;
    assert_eq!(answer.json()["success"], json!(true), "the merchant's other key goes on");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_public_needs_no_key() {
    let world = World::automine().await;
    let service = world.service().await;
    for headers in [&[][..], &[("Authorization", "Bearer nonsense".to_owned())]] {
        for path in ["/supported", "/openapi.yaml"] {
            let answer = service.send(Method::GET, path, headers, String::new()).await;
            assert_eq!(answer.status, 200, "{path}");
        }
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(service.operations(path).await.status, 200, "{path}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_measured_or_stored() {
    let world = World::automine().await;
    let service = world.service_with(&[("QUITTANCE__LOG__FILTER", "trace")]).await;
    let good = world.keys.merchant.reveal();
    let wrong = ApiKey::generate(KeyMode::Test).reveal().to_owned();
    let operator = world.keys.operator.reveal();
    // Every way in which a key is made.
    let (by_command, id) = new_key(&world, "dev merchant", &["--scopes", "read,manage"]).await;
    let create = ("POST", "/v1/keys", json!({}));
    let by_merchant = told(&service, &by_command, create, 201).await;
    let rotate = format!("/v1/keys/{id}/rotate");
    let rotated = told(&service, operator, ("POST", &rotate, json!({})), 201).await;
    let payment = world.payment(0, AMOUNT);
    let signed = signature(&payment);
    for key in [&*wrong, operator, good] {
        for path in ["/verify", "/settle"] {
            let headers = [("Authorization", format!("Bearer {key}"))];
            ask(&service, path, &headers, payment.to_string()).await;
            ask(&service, path, &[("X-API-Key", key.to_owned())], payment.to_string()).await;
        }
    }
    world.until("select count(*) from settlement where answered_at is not null", 1).await;
    let metrics = service.operations("/metrics").await.body;
    assert!(metrics.contains("quittance_settle_total"), "{metrics}");
    let log = service.log();
    assert!(log.contains("claimed a payment"), "{log}");

    let wallet_key = world.services.chain.wallet.private_key.trim_start_matches("0x");
    let mut answers = Vec::new();
    for path in ["/v1/me", "/v1/keys", "/v1/audit", "/v1/merchants"] {
        for key in [&*by_command, operator, good] {
            let headers = [("X-API-Key", key.to_owned())];
            answers.push(service.send(Method::GET, path, &headers, String::new()).await.body);
        }
    }
    let database = whole_database(&world).await;
    let (log, answers) = (service.log(), answers.join("\n"));
    assert!(
        answers.contains("key.rotate") && database.iter().any(|row| row.contains("key.rotate"))
    );
    let pepper = world.services.settings.keys.pepper().unwrap().expose_secret();
    let made = [text(&by_merchant, "key"), text(&rotated, "key"), &by_command];
    let keys = [good, &wrong, operator].into_iter().chain(made);
    // Its 32 bytes in hex, which a `bytea` would show too, and its hash by which no pepper is needed.
    let of_key = |key: &str| [key[14..72].to_owned(), hex::encode(Sha256::digest(key))];
    let secrets: Vec<String> = keys
        .flat_map(|key| [of_key(key).to_vec(), vec![key[key.len() - 40..].to_owned()]].concat())
        .chain([pepper.to_owned(), wallet_key.to_owned()])
        .collect();
    for secret in &secrets {
        // The beginning of a key, its label, may be shown.
        let secret = secret.as_str();
        assert!(!answers.contains(secret), "a secret is in an answer");
        assert!(!metrics.contains(secret), "a secret is in the metrics");
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is in the log");
        for row in &database {
            let as_bytes = hex::encode(secret);
            assert!(!row.contains(secret) && !row.contains(&as_bytes), "a secret is in: {row}");
        }
    }
    let signature = hex::encode(&signed[..32]);
    let line = log.lines().find(|line| line.contains(&signature) && line.contains("quittance"));
    assert_eq!(line, None, "a payer's signature is in the log");
    service.stop().await;
    world.stop().await;
}

/// Every row of every table, as text.
async fn whole_database(world: &World) -> Vec<String> {
    let tables = sqlx::query(
        "select format('%I.%I', table_schema, table_name) from information_schema.tables
         where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')",
    );
    let mut rows = Vec::new();
    for table in tables.fetch_all(&world.books).await.unwrap() {
        let table: String = table.get(0);
        let all = format!("select whole::text from {table} as whole");
        for row in sqlx::query(AssertSqlSafe(all)).fetch_all(&world.books).await.unwrap() {
            rows.push(format!("{table}: {}", row.get::<String, _>(0)));
        }
    }
    assert!(rows.len() > 10, "the books are not empty");
    rows
}
