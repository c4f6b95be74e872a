//! Any token with EIP-3009, and none whose events would not prove that it was paid.

use alloy::primitives::{Address, Bytes};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    callers::{assert_shape, quittance, reason, stderr},
    payments::{Recipe, VERSIONS, Version},
    support::{Emits, Fault, Proxy, Service, World, token_that_emits},
};

const RPC_URL: &str = "QUITTANCE__CHAINS__LOCAL__RPC_URL";
const SIMULATE: &str = "eth_simulateV1";
const NOT_SUPPORTED: &str = "invalid_exact_evm_eip3009_not_supported";
const SOUND: [Emits; 2] = [Emits::Used, Emits::Transfer];

/// Puts code at an address of its own, and gives payments of that asset.
async fn asset(world: &World, n: u8, code: &Bytes) -> Address {
    let asset = Address::repeat_byte(n);
    world.node.set_code(asset, code).await;
    world.node.mine(1).await;
    asset
}

fn payment(world: &World, asset: Address, version: Version) -> Value {
    let mut recipe = Recipe::of(world, 0);
    recipe.market.asset = asset;
    recipe.body(version)
}

/// A service behind a proxy that counts and misbehaves.
async fn behind_proxy(world: &World) -> (Proxy, Service) {
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    (proxy, service)
}

/// Both routes refuse payments of `asset`, say why, and promise nothing.
async fn assert_refused(world: &World, service: &Service, asset: Address, told: &str) {
    for version in VERSIONS {
        for path in ["/verify", "/settle"] {
            let answer = service.post(path, &payment(world, asset, version)).await;
            assert_eq!(answer.status, 200, "{told} at {path}: {}", answer.body);
            assert_shape(path, &answer.json());
            assert_eq!(reason(&answer.json()), Some(NOT_SUPPORTED), "{told}: {}", answer.body);
            assert!(answer.body.contains(told), "{told}: {}", answer.body);
        }
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_whose_events_prove_nothing_is_refused_at_first_use() {
    let world = World::automine().await;
    let service = world.service().await;
    for (n, (emits, told)) in [
        (&[][..], "no AuthorizationUsed event"),
        (&[Emits::Transfer][..], "no AuthorizationUsed event"),
        (&[Emits::Used][..], "no Transfer event of the whole amount"),
        (&[Emits::Used, Emits::AnotherTransfer][..], "no Transfer event of the whole amount"),
    ]
    .into_iter()
    .enumerate()
    {
        let code = token_that_emits(emits);
        let asset = asset(&world, 0xa0 + u8::try_from(n).unwrap(), &code).await;
        assert_refused(&world, &service, asset, told).await;
    }
    // The order of events is the token's, and so is what it emits besides.
    for (n, emits) in [
        &SOUND[..],
        &[Emits::Transfer, Emits::Used],
        &[Emits::AnotherTransfer, Emits::Used, Emits::Transfer],
    ]
    .into_iter()
    .enumerate()
    {
        let code = token_that_emits(emits);
        let asset = asset(&world, 0xb0 + u8::try_from(n).unwrap(), &code).await;
        for version in VERSIONS {
            let answer = service.verify(&payment(&world, asset, version)).await;
            assert_eq!(answer["isValid"], json!(true), "{emits:?}: {answer}");
        }
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_usdc_is_paid() {
    let world = World::automine().await;
    let service = world.service().await;
    let asset = asset(&world, 0xa0, &token_that_emits(&SOUND)).await;
    for version in VERSIONS {
        let answer = service.settle(&payment(&world, asset, version)).await;
        assert_eq!(answer["success"], json!(true), "{answer}");
    }
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_is_tried_once_however_many_ask() {
    let world = World::automine().await;
    let (proxy, service) = behind_proxy(&world).await;
    let usdc = world.services.chain.usdc;
    let silent = asset(&world, 0xa0, &token_that_emits(&[])).await;
    let mut n_tried = 0;
    for (asset, expected) in [(usdc, None), (silent, Some(NOT_SUPPORTED))] {
        for _ in 0..2 {
            let payments: Vec<_> = (0..12).map(|_| payment(&world, asset, Version::V2)).collect();
            let answers = join_all(payments.iter().map(|payment| service.verify(payment))).await;
            assert!(answers.iter().all(|answer| reason(answer) == expected), "{answers:#?}");
        }
        n_tried += 1;
        assert_eq!(proxy.n_calls(SIMULATE), n_tried, "{asset}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_simulated_must_be_well_known() {
    let world = World::automine().await;
    let (proxy, service) = behind_proxy(&world).await;
    let asset = asset(&world, 0xa0, &token_that_emits(&SOUND)).await;
    proxy.set(SIMULATE, Fault::UnknownMethod);
    assert_refused(&world, &service, asset, "no endpoint of eip155:8453 with eth_simulateV1").await;
    let usdc = world.payment(0, 10_000);
    assert_eq!(service.settle(&usdc).await["success"], json!(true));
    service.stop().await;

    // One endpoint that can is enough.
    let able = world.proxy();
    let urls = format!("{},{}", proxy.url, able.url);
    let service = world.service_with(&[(RPC_URL, &urls)]).await;
    let answer = service.verify(&payment(&world, asset, Version::V2)).await;
    assert_eq!(answer["isValid"], json!(true), "{answer}");
    assert_eq!(able.n_calls(SIMULATE), 1);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_with_a_simulation_is_no_verdict_on_the_asset() {
    let world = World::automine().await;
    let (proxy, service) = behind_proxy(&world).await;
    let asset = asset(&world, 0xa0, &token_that_emits(&SOUND)).await;
    let reverting = r#"[{"calls":[{"status":"0x0","returnData":"0x","logs":[]}]}]"#;
    for fault in [
        Fault::RateLimited,
        Fault::DropBefore,
        Fault::Answer("[]"),
        Fault::Answer("null"),
        // Not what the lens saw.
        Fault::Answer(reverting),
    ] {
        proxy.set(SIMULATE, fault);
        for path in ["/verify", "/settle"] {
            let answer = service.post(path, &payment(&world, asset, Version::V2)).await;
            assert_eq!(answer.status, 503, "{fault:?} at {path}: {}", answer.body);
            assert!(answer.header("retry-after").is_some(), "{fault:?}");
            assert_shape(path, &answer.json());
        }
        assert_eq!(world.count("select count(*) from settlement").await, 0, "{fault:?}");
        // What was in trouble is left alone for a while, and then asked again.
    }
    proxy.heal();
    let answer = service.verify(&payment(&world, asset, Version::V2)).await;
    assert_eq!(answer["isValid"], json!(true), "{answer}");
    service.stop().await;
    world.stop().await;
}

async fn limit_to(world: &World, assets: &str) {
    let set = quittance(world, &["merchant", "set", "dev merchant", "--assets", assets]).await;
    assert!(set.status.success(), "{}", stderr(&set));
}

/// Asks until the service has noticed what its merchant may be paid in, which takes a second.
async fn until_verdict(service: &Service, payment: &Value, expected: Option<&str>) -> Value {
    for _ in 0..250 {
        let answer = service.verify(payment).await;
        if reason(&answer) == expected {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the verdict is not {expected:?} after five seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_may_be_limited_to_assets() {
    const REQUIREMENTS: &str = "invalid_payment_requirements";
    let world = World::automine().await;
    let service = world.service().await;
    let usdc = format!("eip155:8453/{}", world.services.chain.usdc);
    let other = format!("eip155:8453/{}", Address::repeat_byte(0xa0));
    let elsewhere = usdc.replace("8453", "84532");
    let payments = VERSIONS.map(|version| version.form(&world.payment(0, 10_000)));
    let claimed = world.payment(1, 10_000);
    let paid = service.settle_with_key(&claimed, "order-1").await;
    assert_eq!(paid.json()["success"], json!(true), "{}", paid.body);

    limit_to(&world, &format!("{other},{elsewhere}")).await;
    for payment in &payments {
        let answer = until_verdict(&service, payment, Some(REQUIREMENTS)).await;
        let told = answer["invalidMessage"].as_str().unwrap();
        assert!(told.contains(&usdc) && told.contains("this merchant"), "{told}");
        let answer = service.settle(payment).await;
        assert_eq!(reason(&answer), Some(REQUIREMENTS), "{answer}");
    }
    // Of two reasons the first is told.
    let mut unserved = Recipe::of(&world, 0);
    unserved.edit("/paymentRequirements/network", "eip155:1");
    for path in ["/verify", "/settle"] {
        let answer = service.post(path, &unserved.body(Version::V2)).await.json();
        assert_eq!(reason(&answer), Some(REQUIREMENTS), "{answer}");
    }
    // What was promised before is told all the same.
    let again = service.settle_with_key(&claimed, "order-1").await;
    assert_eq!(again.body, paid.body);
    assert_eq!(world.count("select count(*) from settlement").await, 1);

    for assets in [format!("{other},{usdc}"), "any".to_owned()] {
        limit_to(&world, &other).await;
        until_verdict(&service, &payments[0], Some(REQUIREMENTS)).await;
        limit_to(&world, &assets).await;
        until_verdict(&service, &payments[0], None).await;
    }
    assert_eq!(service.settle(&payments[0]).await["success"], json!(true));
    service.stop().await;
    world.stop().await;
}
