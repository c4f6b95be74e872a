//! Caps and floors over HTTP: who may set what, and who sees what.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    callers::{key, merchant_key},
    support::{Service, World},
};

/// Somebody with a key.
struct Hand<'a> {
    service: &'a Service,
    key: String,
}

impl Hand<'_> {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut headers = vec![("X-API-Key", self.key.clone())];
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json".to_owned()));
        }
        let answer = self.service.send(method, path, &headers, body).await;
        (answer.status.as_u16(), answer.json())
    }

    async fn set(&self, wish: Value) -> (u16, Value) {
        self.ask(Method::POST, "/v1/caps", Some(wish)).await
    }

    async fn listed(&self) -> Vec<String> {
        let (status, page) = self.ask(Method::GET, "/v1/caps", None).await;
        assert_eq!(status, 200, "{page}");
        let caps = page["caps"].as_array().unwrap();
        caps.iter().map(|cap| cap["capId"].as_str().unwrap().to_owned()).collect()
    }
}

fn id(cap: &Value) -> String {
    cap["capId"].as_str().unwrap_or_else(|| panic!("no cap: {cap}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_caps_itself_and_never_lifts_what_the_operator_set() {
    let world = World::automine().await;
    let service = world.service().await;
    world.far_from_a_full_hour().await;
    merchant_key(&world, "shop").await;
    merchant_key(&world, "other").await;
    let managing = |name| ["--merchant", name, "--test", "--scopes", "manage,read,settle,verify"];
    let shop = Hand { service: &service, key: key(&world, &managing("shop")).await };
    let other = Hand { service: &service, key: key(&world, &managing("other")).await };
    let operator = Hand { service: &service, key: world.keys.operator.reveal().to_owned() };
    let count = |subject: &str, limit: &str| json!({ "subject": subject, "measure": "count", "period": "day", "limit": limit });

    let (status, of_operator) = operator.set(count("payer_at_merchant", "2")).await;
    assert_eq!((status, &of_operator["setBy"]), (200, &json!("operator")), "{of_operator}");
    let (status, of_all) = operator.set(count("payer", "50")).await;
    assert_eq!(status, 200, "{of_all}");
    let (status, own) = shop.set(count("payer_at_merchant", "9")).await;
    assert_eq!((status, &own["setBy"]), (200, &json!("merchant")), "{own}");
    assert_eq!(own["merchantId"].as_str().map(str::len), Some(36), "its own: {own}");

    // Nine of its own do not lift the operator's two; at the other merchant two more are taken.
    for (hand, n_taken) in [(&shop, 2), (&other, 2)] {
        for n in 0..=n_taken {
            let (_, answer) = hand.ask(Method::POST, "/settle", Some(world.payment(0, 10))).await;
            assert_eq!(answer["success"], json!(n < n_taken), "{n}: {answer}");
        }
    }
    let (_, raised) = operator.set(count("payer_at_merchant", "20")).await;
    assert_eq!(id(&raised), id(&of_operator), "a changed limit keeps the id");
    for n in 3..=9 {
        let (_, answer) = shop.ask(Method::POST, "/settle", Some(world.payment(0, 10))).await;
        assert_eq!(answer["success"], json!(true), "{n}: {answer}");
    }
    let (_, answer) = shop.ask(Method::POST, "/settle", Some(world.payment(0, 10))).await;
    assert_eq!(answer["errorReason"], json!("cap_exceeded"), "{answer}");
    assert!(answer["errorMessage"].as_str().unwrap().starts_with("the merchant's cap"), "{answer}");

    // Who sees what.
    assert_eq!(operator.listed().await, [id(&of_operator), id(&of_all), id(&own)]);
    assert_eq!(shop.listed().await, [id(&of_operator), id(&own)]);
    assert_eq!(other.listed().await, [id(&of_operator)]);
    let usage = async |hand: &Hand<'_>, cap: &Value| {
        let (status, told) = hand.ask(Method::GET, &format!("/v1/caps/{}", id(cap)), None).await;
        let used = told["usage"].as_array().into_iter().flatten();
        (status, used.map(|used| used["used"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(usage(&operator, &of_operator).await, (200, vec!["9".to_owned(), "2".to_owned()]));
    assert_eq!(usage(&shop, &of_operator).await, (200, vec!["9".to_owned()]));
    assert_eq!(usage(&other, &of_operator).await, (200, vec!["2".to_owned()]));
    assert_eq!(usage(&operator, &of_all).await, (200, vec!["11".to_owned()]));
    assert_eq!(usage(&shop, &of_all).await.0, 404, "what a payer pays elsewhere");
    assert_eq!(usage(&other, &own).await.0, 404);

    // Who removes what.
    for (hand, cap, expected) in [
        (&shop, &of_operator, 404),
        (&other, &own, 404),
        (&shop, &own, 200),
        (&shop, &own, 404),
        (&operator, &of_operator, 200),
    ] {
        let path = format!("/v1/caps/{}", id(cap));
        let (status, answer) = hand.ask(Method::DELETE, &path, None).await;
        assert_eq!(status, expected, "{answer}");
    }
    let made = "select count(*) from audit where action like 'cap.%' and actor_kind in ('operator', 'merchant')";
    assert_eq!(world.count(made).await, 6);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_cap_or_not_ones_own_is_refused() {
    let world = World::automine().await;
    let service = world.service().await;
    merchant_key(&world, "shop").await;
    let managing = ["--merchant", "shop", "--test", "--scopes", "manage"];
    let shop = Hand { service: &service, key: key(&world, &managing).await };
    let reader = ["--merchant", "shop", "--test", "--scopes", "read"];
    let reader = Hand { service: &service, key: key(&world, &reader).await };
    let operator = Hand { service: &service, key: world.keys.operator.reveal().to_owned() };
    let nobody = "01900000-0000-7000-8000-000000000000";
    let (chain_id, usdc) = (&world.services.chain.chain_id.to_string(), world.services.chain.usdc);
    let good = json!({ "subject": "merchant", "measure": "count", "period": "day", "limit": "1" });
    let with = |changes: Value| {
        let mut wish = good.clone();
        for (key, value) in changes.as_object().unwrap() {
            wish[key] = value.clone();
        }
        wish
    };
    for (hand, wish, expected) in [
        (&reader, good.clone(), 403),
        (&shop, with(json!({ "subject": "payer" })), 403),
        (&shop, with(json!({ "merchantId": nobody })), 403),
        (&shop, with(json!({ "subject": "key", "keyId": nobody })), 404),
        (&operator, with(json!({ "merchantId": nobody })), 404),
        (&operator, with(json!({ "subject": "key", "keyId": nobody })), 404),
        (&operator, with(json!({ "subject": "everybody" })), 400),
        (&operator, with(json!({ "subject": "payer", "payer": "0x12" })), 400),
        (&operator, with(json!({ "payer": usdc })), 400),
        (&operator, with(json!({ "limit": "1.5" })), 400),
        (&operator, with(json!({ "limit": 1 })), 400),
        (&operator, with(json!({ "period": "week" })), 400),
        (&operator, with(json!({ "period": "payment" })), 400),
        (&operator, with(json!({ "measure": "amount" })), 400),
        (&operator, with(json!({ "measure": "amount", "asset": usdc })), 400),
        (&operator, with(json!({ "asset": usdc })), 400),
        (&operator, with(json!({ "measure": "gas", "chainId": chain_id, "period": "hour" })), 400),
        (&operator, with(json!({ "measure": "gas", "chainId": "base" })), 400),
        (&operator, with(json!({ "most": "1" })), 400),
        (&operator, json!({}), 400),
        (&operator, with(json!({ "measure": "gas", "chainId": chain_id })), 200),
        (&operator, with(json!({ "chainId": chain_id, "asset": usdc })), 200),
        (&shop, good.clone(), 200),
    ] {
        let (status, answer) = hand.set(wish.clone()).await;
        assert_eq!(status, expected, "{wish}: {answer}");
        if expected != 200 {
            assert!(!answer["message"].as_str().unwrap().is_empty(), "{answer}");
        }
    }
    assert_eq!(operator.listed().await.len(), 3);
    let path = format!("/v1/floors/{chain_id}/{usdc}");
    let price = |price: &str| Some(json!({ "baseUnitsPerCoin": price }));
    for (hand, method, path, body, expected) in [
        (&shop, Method::PUT, path.as_str(), price("1"), 403),
        (&shop, Method::GET, "/v1/floors", None, 403),
        (&operator, Method::DELETE, &path, None, 404),
        (&operator, Method::PUT, &path, price("0"), 400),
        (&operator, Method::PUT, &path, price("x"), 400),
        (&operator, Method::PUT, "/v1/floors/base/0x12", price("1"), 400),
        (&operator, Method::PUT, &path, price("1"), 200),
        (&operator, Method::PUT, &path, price("2"), 200),
        (&operator, Method::GET, "/v1/floors", None, 200),
        (&operator, Method::DELETE, &path, None, 200),
    ] {
        let what = format!("{method} {path} {body:?}");
        let (status, answer) = hand.ask(method, path, body).await;
        assert_eq!(status, expected, "{what}: {answer}");
        if path == "/v1/floors" && expected == 200 {
            assert_eq!(answer["floors"][0]["baseUnitsPerCoin"], json!("2"), "{answer}");
        }
    }
    service.stop().await;
    world.stop().await;
}
