//! Endpoints that know no state overrides, take short requests only, or give calls little gas: payments
//! are judged all the same, or nothing is said of them.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use futures_util::future::join_all;
use quittance::verify::Factories;
use serde_json::Value;

use crate::{
    behind_proxy, end,
    support::{Fault, Proxy, RPC_URL, Service, World, signed_by},
};

const WALLET: Address = Address::repeat_byte(0xa1);
const FACTORY: Address = Factories::DEFAULT[0];
const CALL: &str = "eth_call";

/// Payments of every kind, and for each why it is refused, if it is.
async fn payments(world: &World, n: usize) -> Vec<(Value, Option<&'static str>)> {
    let mut all = Vec::new();
    for n in 0..n {
        let amount = 1_000 + u64::try_from(n).unwrap();
        let sound = world.payment(n % 8, amount);
        all.push(match n % 8 {
            0 => (signed_by(&sound, &[0x11; 65]), Some("invalid_exact_evm_signature")),
            1 => (world.payment_of(WALLET, 0, amount), None),
            2 => (world.counterfactual(FACTORY, 0, 1, amount).await, None),
            3 => (world.payment_of(WALLET, 1, amount), Some("invalid_exact_evm_signature")),
            _ => (sound, None),
        });
    }
    all
}

async fn assert_all_judged(service: &Service, payments: &[(Value, Option<&str>)]) {
    let verdicts = join_all(payments.iter().map(|(payment, _)| service.verify(payment))).await;
    for (n, (verdict, (_, reason))) in verdicts.iter().zip(payments).enumerate() {
        assert_eq!(verdict["invalidReason"].as_str(), *reason, "{n}: {verdict}");
    }
}

/// Nothing is said of a payment, and nothing is promised.
async fn assert_no_verdict(world: &World, service: &Service, payment: &Value) {
    for path in ["/verify", "/settle"] {
        let answer = service.post(path, payment).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
        assert!(answer.header("retry-after").is_some(), "{path}");
        assert!(!answer.body.contains("invalid_exact"), "{path}: {}", answer.body);
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
}

async fn prepared() -> World {
    let world = World::automine().await;
    world.place_wallet(WALLET, 0).await;
    world.place(FACTORY, "SmartWalletFactory", U256::ZERO).await;
    world.give(world.address_by(FACTORY, 0, 1).await, 1_000_000).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_endpoint_refuses_payments_are_judged_in_another_way() {
    let world = prepared().await;
    let payments = payments(&world, 64).await;
    for (what, fault, n_bytes_max) in [
        ("no overrides", Some(Fault::NoOverrides), 0),
        ("no overrides, and no long requests", Some(Fault::NoOverrides), 40_000),
        ("no long requests", None, 30_000),
        ("little gas", Some(Fault::GasCap(4_000_000)), 0),
    ] {
        let proxy = Proxy::before(&world.services.chain.rpc_url);
        if let Some(fault) = fault {
            proxy.set(CALL, fault);
        }
        proxy.limit_bodies(n_bytes_max);
        let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
        assert_all_judged(&service, &payments).await;
        assert!(proxy.n_calls(CALL) > 4, "{what}");
        let paid = service.settle(&world.payment(0, 1)).await;
        assert_eq!(paid["success"], true, "{what}: {paid}");
        service.stop().await;
    }
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_way_is_left_nothing_is_said_of_payments() {
    let world = prepared().await;
    let payment = world.payment(0, 1_000);
    let (proxy, service) = behind_proxy(&world, &[]).await;
    // Neither override nor creation code; then a gas that is not enough for one payment.
    proxy.set(CALL, Fault::NoOverrides);
    proxy.limit_bodies(10_000);
    assert_no_verdict(&world, &service, &payment).await;
    proxy.limit_bodies(0);
    proxy.set(CALL, Fault::GasCap(300_000));
    assert_no_verdict(&world, &service, &payment).await;
    proxy.heal();
    // The refusal is believed for a moment.
    for _ in 0..400 {
        if service.post("/verify", &payment).await.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(service.verify(&payment).await["isValid"], true);
    assert_eq!(service.settle(&payment).await["success"], true);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_what_it_took_before_is_asked_in_another_way() {
    let world = prepared().await;
    let payments = payments(&world, 24).await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    assert_all_judged(&service, &payments).await;
    for (fault, n_bytes_max) in [(Some(Fault::NoOverrides), 0), (None, 30_000)] {
        proxy.heal();
        proxy.limit_bodies(n_bytes_max);
        if let Some(fault) = fault {
            proxy.set(CALL, fault);
        }
        assert_all_judged(&service, &payments).await;
        assert_eq!(service.verify(&world.payment(0, 1)).await["isValid"], true);
    }
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_the_lens_is_left_for_the_next() {
    let world = prepared().await;
    let payments = payments(&world, 24).await;
    let (first, second) = (
        Proxy::before(&world.services.chain.rpc_url),
        Proxy::before(&world.services.chain.rpc_url),
    );
    first.set(CALL, Fault::NoOverrides);
    first.limit_bodies(10_000);
    let urls = format!("{},{}", first.url, second.url);
    let service = world.service_with(&[(RPC_URL, &urls)]).await;
    assert_all_judged(&service, &payments).await;
    assert_eq!(service.settle(&world.payment(0, 1)).await["success"], true);
    service.stop().await;
    world.stop().await;
}
