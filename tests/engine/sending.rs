//! What nodes do with transactions: lose them, forget them, answer nonsense about them.

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    settle_in_background,
    support::{Fault, Proxy, World},
};

#[tokio::test(flavor = "multi_thread")]
async fn many_payments_are_in_flight_at_once_without_a_gap() {
    let world = World::stepped().await;
    let service = world
        .service_with(&[
            ("QUITTANCE__CHAINS__LOCAL__N_IN_FLIGHT_MAX", "6"),
            ("QUITTANCE__CHAINS__LOCAL__N_PAYMENTS_PER_TRANSACTION_MAX", "1"),
        ])
        .await;
    let asked: Vec<_> =
        (0..20).map(|n| settle_in_background(&service, &world.payment(n % 8, 1_000))).collect();
    world.until("select count(*) from settlement", 20).await;
    let mut n_mined = 0;
    for n_expected in [6, 6, 6, 2] {
        world.node.until_pending(n_expected).await;
        assert_eq!(
            world.count("select count(*) from transaction where status = 'open'").await,
            i64::try_from(n_expected).unwrap()
        );
        world.node.mine(1).await;
        n_mined += n_expected;
        let n = i64::try_from(n_mined).unwrap();
        world.until("select count(*) from transaction where status = 'mined'", n).await;
    }
    let answers: Vec<_> = join_all(asked).await.into_iter().map(|a| a.unwrap().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer["success"] == true), "{answers:?}");
    let wallet = world.services.chain.wallet.address;
    assert_eq!(world.node.account_nonce(wallet).await, 20);
    assert_eq!(world.payee_balance().await, 20_000);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_lost_after_forwarding_costs_nothing() {
    let world = World::stepped().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    proxy.set("eth_sendRawTransaction", Fault::DropAfterForward);
    let service = world.service_with(&[("QUITTANCE__CHAINS__LOCAL__RPC_URL", &proxy.url)]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.until("select count(*) from attempt where sent_answer is not null", 1).await;
    assert_eq!(world.count("select count(*) from settlement where status = 'submitted'").await, 1);
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(world.payee_balance().await, 10_000);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_pool_forgot_is_sent_again_with_the_next_block() {
    let world = World::stepped().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    let service = world.service_with(&[("QUITTANCE__CHAINS__LOCAL__RPC_URL", &proxy.url)]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.until("select count(*) from attempt where sent_answer = 'accepted'", 1).await;
    world.node.call("anvil_dropAllTransactions", json!([])).await;
    assert_eq!(world.node.n_pending().await, 0);
    world.node.mine(1).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    let sent = proxy.sent();
    assert!(sent.len() >= 2 && sent.iter().all(|raw| *raw == sent[0]), "other bytes were sent");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_whose_key_was_used_elsewhere_signs_nothing_and_says_so() {
    let world = World::automine().await;
    let service = world.service().await;
    assert_eq!(service.settle(&world.payment(0, 1_000)).await["success"], true);
    service.stop().await;
    let wallet = world.services.chain.wallet.address;
    world.node.call("anvil_setNonce", json!([wallet, "0x7"])).await;
    let service = crate::support::Service::spawn(&world, &[]).await;
    let troubles = async {
        loop {
            let answer = service.operations("/readyz").await;
            if answer.body.contains("used elsewhere") {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), troubles).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoints_url_is_told_to_nobody() {
    let world = World::automine().await;
    // Nobody listens on port 1. Providers put keys into paths and queries.
    let url = "http://127.0.0.1:1/v2/secret-in-the-path?key=secret-in-the-query";
    let settings = [("QUITTANCE__CHAINS__LOCAL__RPC_URL", url)];
    let service = crate::support::Service::spawn(&world, &settings).await;
    let answer = service.post("/verify", &world.payment(0, 1_000)).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.json()["invalidReason"], "unexpected_verify_error");
    let readiness = service.operations("/readyz").await;
    assert_eq!(readiness.status, 503);
    for told in [answer.body, readiness.body, service.log()] {
        assert!(!told.contains("secret-in-the"), "{told}");
    }
    assert!(service.log().contains("read the latest block"), "{}", service.log());
    service.stop().await;
    world.stop().await;
}
