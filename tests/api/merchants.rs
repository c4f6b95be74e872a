//! Merchants: created, changed, suspended, resumed, closed.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    callers::{asking, assert_shape, quittance, reason},
    desk::{ask, new_key, printed, refused, text, told},
    payments::AMOUNT,
    support::{Service, World},
};

const USDC: &str = "eip155:8453/0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";

async fn dev_merchant(world: &World) -> String {
    let shown = printed(world, &["merchant", "show", "dev merchant"]).await;
    text(&shown, "merchantId").to_owned()
}

/// Asks for a verdict until it is answered with that status; a change takes effect within a second.
async fn until_verify(service: &Service, payment: &Value, status: u16) {
    let started = std::time::Instant::now();
    while service.post("/verify", payment).await.status != status {
        assert!(started.elapsed() < Duration::from_secs(1), "it takes more than a second");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_creates_changes_and_lists_merchants() {
    let world = World::automine().await;
    let service = world.service().await;
    let operator = world.keys.operator.reveal();
    let asked = json!({ "name": "shop", "waitFor": "safe", "assets": [USDC] });
    let shop = told(&service, operator, ("POST", "/v1/merchants", asked.clone()), 201).await;
    assert_eq!((&shop["status"], &shop["statusReason"]), (&json!("active"), &Value::Null));
    assert_eq!((&shop["waitFor"], &shop["assets"]), (&json!("safe"), &json!([USDC])));
    refused(&service, operator, ("POST", "/v1/merchants", asked), 409, "conflict").await;
    for (wrong, named) in [
        (json!({}), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "x".repeat(201) }), "name"),
        (json!({ "name": "a\u{0}b" }), "name"),
        (json!({ "name": "x", "wait_for": "safe" }), "wait_for"),
        (json!({ "name": "x", "waitFor": "deep" }), "waitFor"),
        (json!({ "name": "x", "assets": [] }), "assets"),
        (json!({ "name": "x", "assets": "USDC" }), "assets"),
        (json!({ "name": "x", "assets": ["USDC"] }), "assets"),
    ] {
        let create = ("POST", "/v1/merchants", wrong);
        let said = refused(&service, operator, create, 400, "invalid_request").await;
        assert!(said.contains(named), "{said}");
    }
    let path = format!("/v1/merchants/{}", text(&shop, "merchantId"));
    let renamed = told(&service, operator, ("PATCH", &path, json!({ "name": "store" })), 200).await;
    assert_eq!((&renamed["name"], &renamed["waitFor"]), (&json!("store"), &json!("safe")));
    let any = told(&service, operator, ("PATCH", &path, json!({ "assets": "any" })), 200).await;
    assert_eq!((&any["name"], &any["assets"]), (&json!("store"), &json!("any")));
    assert_eq!(told(&service, operator, ("GET", &path, Value::Null), 200).await, any);
    for (change, status, code) in [
        (json!({ "name": "dev merchant" }), 409, "conflict"),
        (json!({}), 400, "invalid_request"),
        (json!({ "status": "closed" }), 400, "invalid_request"),
    ] {
        refused(&service, operator, ("PATCH", &path, change), status, code).await;
    }
    for id in ["01900000-0000-7000-8000-000000000000", "shop"] {
        let path = format!("/v1/merchants/{id}");
        refused(&service, operator, ("GET", &path, Value::Null), 404, "not_found").await;
        let change = ("PATCH", &*path, json!({ "assets": "any" }));
        refused(&service, operator, change, 404, "not_found").await;
    }
    for n in 0..3 {
        printed(&world, &["merchant", "create", &format!("m{n}")]).await;
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/merchants?limit=2{after}");
        let page = told(&service, operator, ("GET", &path, Value::Null), 200).await;
        let page_names = page["merchants"].as_array().unwrap().iter().map(|m| text(m, "name"));
        names.extend(page_names.map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(names, ["dev merchant", "store", "m0", "m1", "m2"]);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_merchant_may_read_and_what_it_claimed_is_settled() {
    let world = World::stepped().await;
    let service = world.service().await;
    let operator = world.keys.operator.reveal();
    let path = format!("/v1/merchants/{}", dev_merchant(&world).await);
    let move_to = |verb: &str| (format!("{path}/{verb}"), json!({ "reason": "a reason" }));
    let (reader, _) = new_key(&world, "dev merchant", &["--scopes", "read,manage"]).await;
    let (claimed, unclaimed) = (world.payment(0, AMOUNT), world.payment(1, AMOUNT));
    let asked = asking(&service, "/settle", &claimed, Some("order-1"));
    world.node.until_pending(1).await;

    let (suspend, body) = move_to("suspend");
    for wrong in [json!({}), json!({ "reason": "" }), json!({ "reason": "x".repeat(501) })] {
        refused(&service, operator, ("POST", &suspend, wrong), 400, "invalid_request").await;
    }
    let suspended = told(&service, operator, ("POST", &suspend, body.clone()), 200).await;
    assert_eq!(suspended["status"], "suspended");
    assert_eq!(suspended["statusReason"], "a reason");
    until_verify(&service, &unclaimed, 403).await;
    for (path, payment) in [("/verify", &unclaimed), ("/settle", &unclaimed), ("/settle", &claimed)]
    {
        let answer = service.post(path, payment).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        assert_shape(path, &answer.json());
        assert_eq!(reason(&answer.json()), Some("merchant_suspended"));
        assert!(answer.body.contains("nothing is known against the payment"), "{}", answer.body);
        assert!(!answer.body.contains("a reason"), "the operator's words are not the buyer's");
    }
    let me = told(&service, &reader, ("GET", "/v1/me", Value::Null), 200).await;
    assert_eq!(text(&me["merchant"], "statusReason"), "a reason");
    let manage = ("POST", "/v1/keys", json!({}));
    refused(&service, &reader, manage, 403, "merchant_suspended").await;

    world.node.mine(1).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.json()["success"], json!(true), "{}", answer.body);
    assert_eq!(world.count("select count(*) from settlement").await, 1);
    let repeated = service.settle_with_key(&claimed, "order-1").await;
    assert_eq!(repeated.status, 403);

    let (resume, body) = move_to("resume");
    let resumed = told(&service, operator, ("POST", &resume, body), 200).await;
    assert_eq!(resumed["status"], "active");
    until_verify(&service, &unclaimed, 200).await;
    let repeated = service.settle_with_key(&claimed, "order-1").await;
    assert_eq!(repeated.json()["success"], json!(true), "{}", repeated.body);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_merchant_may_nothing_for_good() {
    let world = World::automine().await;
    let service = world.service().await;
    let operator = world.keys.operator.reveal();
    let merchant_id = dev_merchant(&world).await;
    let path = format!("/v1/merchants/{merchant_id}");
    let (key, _) =
        new_key(&world, "dev merchant", &["--scopes", "verify,settle,read,manage"]).await;
    let payment = world.payment(0, AMOUNT);
    let close = ("POST", &*format!("{path}/close"), json!({ "reason": "gone" }));
    let closed = told(&service, operator, close.clone(), 200).await;
    assert_eq!(closed["status"], "closed");
    until_verify(&service, &payment, 403).await;
    for (method, path, body) in [
        (Method::POST, "/verify", payment.clone()),
        (Method::POST, "/settle", payment.clone()),
        (Method::GET, "/v1/me", Value::Null),
        (Method::GET, "/v1/keys", Value::Null),
    ] {
        let answer = ask(&service, &key, method, path, body).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        assert!(answer.body.contains("merchant_suspended"), "{path}: {}", answer.body);
    }
    assert_eq!(told(&service, operator, close, 200).await, closed, "it is closed already");
    for (method, path, body) in [
        ("POST", format!("{path}/resume"), json!({ "reason": "back" })),
        ("POST", format!("{path}/suspend"), json!({ "reason": "back" })),
        ("PATCH", path.clone(), json!({ "assets": "any" })),
        ("POST", "/v1/keys".to_owned(), json!({ "merchantId": merchant_id, "mode": "test" })),
    ] {
        refused(&service, operator, (method, &path, body), 409, "conflict").await;
    }
    let reopen = "update merchant set status = 'active' where status = 'closed'";
    let refused = sqlx::query(reopen).execute(&world.books).await.unwrap_err();
    assert!(refused.to_string().contains("final"), "{refused}");
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_looks_at_merchant_and_key_as_they_are() {
    let world = World::automine().await;
    let mut service = world.service().await;
    for (n, (sql, undo, status, expected)) in [
        (
            "update merchant set status = 'suspended'",
            "update merchant set status = 'active'",
            403,
            "merchant_suspended",
        ),
        (
            "update api_key set expires_at = now() where role = 'merchant'",
            "update api_key set expires_at = null where role = 'merchant'",
            401,
            "unauthorized",
        ),
        ("update api_key set revoked_at = now()", "", 401, "unauthorized"),
    ]
    .into_iter()
    .enumerate()
    {
        let payment = world.payment(n, AMOUNT);
        // A key that was not presented before is believed for most of a second from here on.
        service.api_key = new_key(&world, "dev merchant", &[]).await.0;
        assert_eq!(service.verify(&payment).await["isValid"], json!(true));
        sqlx::query(sql).execute(&world.books).await.unwrap();
        let answer = service.post("/settle", &payment).await;
        assert_eq!(answer.status.as_u16(), status, "{sql}: {}", answer.body);
        assert_shape("/settle", &answer.json());
        assert_eq!(reason(&answer.json()), Some(expected), "{sql}");
        assert_eq!(world.count("select count(*) from settlement").await, 0, "{sql}");
        if !undo.is_empty() {
            sqlx::query(undo).execute(&world.books).await.unwrap();
        }
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merchants_are_kept_at_the_command_line_too() {
    let world = World::automine().await;
    for (arguments, status, said) in [
        (&["list"][..], 0, "active"),
        (&["show", "dev merchant"], 0, "waits for  included"),
        (&["show", "nobody"], 1, "there is no such merchant"),
        (&["suspend", "dev merchant"], 64, "--reason"),
        (&["suspend", "dev merchant", "--reason", ""], 64, "--reason"),
        (&["suspend", "dev merchant", "--reason", "late"], 0, "is suspended"),
        (&["show", "dev merchant"], 0, "suspended (late)"),
        (&["set", "dev merchant", "--rename", "shop"], 0, "is called shop"),
        (&["resume", "shop", "--reason", "paid"], 0, "is active"),
        (&["close", "shop", "--reason", "gone"], 0, "is closed"),
        (&["resume", "shop", "--reason", "back"], 1, "final"),
        (&["set", "shop", "--assets", "any"], 1, "final"),
    ] {
        let output = quittance(&world, &[&["merchant"], arguments].concat()).await;
        let told = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
    let listed = printed(&world, &["merchant", "list"]).await;
    assert_eq!((&listed[0]["name"], &listed[0]["status"]), (&json!("shop"), &json!("closed")));
    world.stop().await;
}
