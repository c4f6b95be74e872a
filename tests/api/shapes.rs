//! What the answers look like, field by field.

use serde_json::json;

use crate::{
    callers::{assert_shape, hash},
    payments::{AMOUNT, Recipe, VERSIONS, with, with_signature},
    support::{Fault, Proxy, World},
};

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_exactly_the_fields_of_the_protocol_in_both_versions() {
    let world = World::automine().await;
    let service = world.service().await;
    for (n, version) in VERSIONS.into_iter().enumerate() {
        let payer = world.buyer(n).address().to_checksum(None);
        let payment = Recipe::of(&world, n).body(version);

        let verdict = service.verify(&payment).await;
        assert_eq!(verdict, json!({ "isValid": true, "payer": payer }));

        let forged = with_signature(&payment, &[0x11; 65]);
        let verdict = service.verify(&forged).await;
        let message = verdict["invalidMessage"].as_str().expect("a message").to_owned();
        assert!(!message.is_empty());
        let expected = json!({
            "isValid": false,
            "invalidReason": "invalid_exact_evm_signature",
            "invalidMessage": message,
            "payer": payer,
        });
        assert_eq!(verdict, expected);

        let refused = service.settle(&forged).await;
        let message = refused["errorMessage"].as_str().expect("a message").to_owned();
        let expected = json!({
            "success": false,
            "transaction": "",
            "network": version.base(),
            "errorReason": "invalid_exact_evm_signature",
            "errorMessage": message,
            "payer": payer,
        });
        assert_eq!(refused, expected);

        let paid = service.settle(&payment).await;
        let transaction = paid["transaction"].clone();
        let expected = json!({
            "success": true,
            "transaction": transaction,
            "network": version.base(),
            "payer": payer,
        });
        assert_eq!(paid, expected);
        let receipt = world.node.receipt(hash(&paid)).await.expect("the transaction is mined");
        assert_eq!(receipt["status"], json!("0x1"));
    }
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_echoed_as_asked_even_when_the_question_is_refused() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = Recipe::of(&world, 0);
    for version in VERSIONS {
        let body = payment.body(version);
        let long = "x".repeat(64);
        let too_long = "x".repeat(65);
        for (network, echoed) in [
            (json!("eip155:1"), "eip155:1"),
            (json!("ethereum"), "ethereum"),
            (json!("solana:mainnet"), "solana:mainnet"),
            (json!(""), ""),
            (json!(long), long.as_str()),
            (json!(too_long), ""),
            (json!(8453), ""),
            (json!(null), ""),
        ] {
            let asked = with(&body, "/paymentRequirements/network", network);
            let answer = service.settle(&asked).await;
            assert_shape("/settle", &answer);
            assert_eq!(answer["network"], json!(echoed), "{answer}");
            assert_eq!(answer["transaction"], json!(""));
        }
        let asked = with(&body, "/paymentPayload/payload", json!(null));
        let answer = service.settle(&asked).await;
        assert_eq!(answer["network"], json!(version.base()));
        assert_eq!(answer.get("payer"), None, "no payer could be read: {answer}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn supported_is_the_same_whether_the_endpoint_answers_or_not() {
    let world = World::automine().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = world.service_with(&[("QUITTANCE__CHAINS__LOCAL__RPC_URL", &proxy.url)]).await;
    let expected = json!({
        "kinds": [
            { "x402Version": 2, "scheme": "exact", "network": "eip155:8453" },
            { "x402Version": 1, "scheme": "exact", "network": "base" },
        ],
        "extensions": [],
        "signers": { "eip155:*": [world.services.chain.wallet.address.to_checksum(None)] },
    });
    let ask = async || {
        let url = format!("{}/supported", service.url);
        reqwest::get(url).await.unwrap().json::<serde_json::Value>().await.unwrap()
    };
    assert_eq!(ask().await, expected);
    proxy.set_all(Fault::DropBefore);
    assert_eq!(ask().await, expected);

    // Nor does it depend on the endpoint having answered ever.
    let never = [("QUITTANCE__CHAINS__LOCAL__RPC_URL", proxy.url.as_str())];
    let other = crate::support::Service::spawn(&world, &never).await;
    let answer = reqwest::get(format!("{}/supported", other.url)).await.unwrap();
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap(), expected);
    other.stop().await;
    service.stop().await;
    world.stop().await;
}
