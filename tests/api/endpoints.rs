//! Endpoints that take the verification lens with limits, or not at all: noticed at the start, handled,
//! and told.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    callers::{quittance_with, stdout},
    payments::AMOUNT,
    support::{Fault, Proxy, Service, World},
};

const RPC_URL: &str = "QUITTANCE__CHAINS__LOCAL__RPC_URL";
const CALL: &str = "eth_call";
/// The lens alone is longer; what a token is asked is not.
const NO_LENS: Fault = Fault::ShortCalls(4_000);

async fn until_logged(service: &Service, message: &str) {
    for _ in 0..1_500 {
        if service.log().contains(message) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{message:?} is not logged after 30 seconds:\n{}", service.log());
}

/// What `quittance doctor` finds of the chain's endpoints.
async fn findings(world: &World, urls: &str) -> Vec<(bool, String)> {
    let mut settings = world.environment();
    settings.retain(|(name, _)| *name != RPC_URL);
    settings.push((RPC_URL, urls.to_owned()));
    let told = quittance_with(&settings, &["doctor", "--json"]).await;
    let findings: Value = serde_json::from_str(stdout(&told)).unwrap();
    let of_chain = findings.as_array().unwrap().iter().filter(|finding| {
        let subject = finding["subject"].as_str().unwrap();
        subject == "chains.local" || subject.starts_with("chains.local.endpoint")
    });
    of_chain
        .map(|found| (found["ok"] == json!(true), found["detail"].as_str().unwrap().to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_limits_verifies_all_the_same_and_is_told() {
    let world = World::automine().await;
    for (fault, told) in [
        (None, "verifies 100 payments a call by state override"),
        (Some(Fault::NoOverrides), "verifies 32 payments a call by creation code"),
        (Some(Fault::ShortCalls(100_000)), "verifies 50 payments a call by state override"),
    ] {
        let proxy = world.proxy();
        if let Some(fault) = fault {
            proxy.set(CALL, fault);
        }
        let found = findings(&world, &proxy.url).await;
        assert!(matches!(found.as_slice(), [(true, text)] if text.ends_with(told)), "{found:?}");
        let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
        if fault.is_some() {
            let limits = format!("an endpoint takes the lens with limits: it {told}");
            until_logged(&service, &limits).await;
        }
        let metrics = service.operations("/metrics").await.body;
        assert!(metrics.contains("quittance_rpc_endpoint_lens_payments"), "{metrics}");
        let paid = service.settle(&world.payment(0, AMOUNT)).await;
        assert_eq!(paid["success"], json!(true), "{told}: {paid}");
        service.stop().await;
    }
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_verify_is_of_use_for_the_rest_and_tried_again() {
    let world = World::automine().await;
    let (unable, able): (Proxy, Proxy) = (world.proxy(), world.proxy());
    unable.set(CALL, NO_LENS);
    let urls = format!("{},{}", unable.url, able.url);
    let found = findings(&world, &urls).await;
    let [(false, first), (true, _)] = found.as_slice() else { panic!("{found:?}") };
    assert!(first.contains("takes the verification lens neither"), "{first}");
    assert!(first.contains("request too large"), "{first}");

    let service = world.service_with(&[(RPC_URL, &urls)]).await;
    until_logged(&service, "neither way, and verifies nothing").await;
    let n_refused = unable.n_calls(CALL);
    for n in 0..3 {
        let verdict = service.verify(&world.payment(n, AMOUNT)).await;
        assert_eq!(verdict["isValid"], json!(true), "{verdict}");
    }
    // The token was asked who it is, and the lens was not tried with each payment.
    assert!(unable.n_calls(CALL) <= n_refused + 14, "{} calls", unable.n_calls(CALL) - n_refused);
    assert!(!service.log().contains("is set aside"), "{}", service.log());

    unable.heal();
    until_logged(&service, "takes the lens as it should again").await;
    service.stop().await;

    // Alone, it is trouble and no verdict.
    unable.set(CALL, NO_LENS);
    let service = world.service_with(&[(RPC_URL, &unable.url)]).await;
    let answer = service.post("/verify", &world.payment(0, AMOUNT)).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_where_assets_cannot_be_tried() {
    let world = World::automine().await;
    let proxy = world.proxy();
    proxy.set("eth_simulateV1", Fault::UnknownMethod);
    let found = findings(&world, &proxy.url).await;
    let [(true, told)] = found.as_slice() else { panic!("{found:?}") };
    assert!(told.contains("without eth_simulateV1"), "{told}");
    world.stop().await;
}
