//! The process dies, and a new one finishes what it began.

use serde_json::json;

use crate::support::{Fault, Proxy, World};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_a_kill_is_found_after_it() {
    let world = World::stepped().await;
    let service = world.service().await;
    let payment = world.payment(0, 10_000);
    let (url, key) = (service.url.clone(), service.api_key.clone());
    let asked = tokio::spawn({
        let payment = payment.clone();
        async move {
            let http = reqwest::Client::new();
            http.post(format!("{url}/settle")).bearer_auth(key).json(&payment).send().await
        }
    });
    world.node.until_pending(1).await;
    service.kill().await;
    assert!(asked.await.unwrap().is_err(), "the caller was answered by a dead process");
    world.node.mine(1).await;

    let service = world.service().await;
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    assert_eq!(world.payee_balance().await, 10_000);
    // The right of the dead process's caller lapses; then the merchant's retry takes the answer.
    world.until("select count(*) from settlement where answer_held_until > now()", 0).await;
    let answer = service.settle(&payment).await;
    assert_eq!(answer["success"], true, "{answer}");
    let again = service.settle(&payment).await;
    assert_eq!(again["errorReason"], json!("duplicate_settlement"), "{again}");
    assert_eq!(again["transaction"], answer["transaction"]);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_and_never_sent_is_sent_by_the_next_process() {
    let world = World::stepped().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    proxy.set("eth_sendRawTransaction", Fault::DropBefore);
    let service = world.service_with(&[("QUITTANCE__CHAINS__LOCAL__RPC_URL", &proxy.url)]).await;
    let payment = world.payment(0, 10_000);
    let asked = tokio::spawn({
        let (url, key) = (service.url.clone(), service.api_key.clone());
        async move {
            let http = reqwest::Client::new();
            http.post(format!("{url}/settle")).bearer_auth(key).json(&payment).send().await
        }
    });
    world.until("select count(*) from attempt where sent_answer is not null", 1).await;
    assert_eq!(world.node.n_pending().await, 0);
    service.kill().await;
    assert!(asked.await.unwrap().is_err());

    proxy.heal();
    let service = world.service_with(&[("QUITTANCE__CHAINS__LOCAL__RPC_URL", &proxy.url)]).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    let sent = proxy.sent();
    assert!(sent.len() >= 2 && sent.iter().all(|raw| *raw == sent[0]), "other bytes were sent");
    assert_eq!(world.payee_balance().await, 10_000);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
