//! A settlement at which our own code panics.

#![cfg(feature = "fault-injection")]

use crate::{settle_in_background, support::World};

/// Blocks until the others of a batch of four are paid: halved twice, then alone, and room for a busy
/// machine.
const N_BLOCKS_MAX: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_panics_stops_neither_its_batch_nor_the_wallet() {
    let world = World::stepped().await;
    let payments: Vec<_> = (0..4).map(|n| world.payment(n, 1_000)).collect();
    // The oldest of them, so that it is always the first to be looked at.
    let authorization = &payments[0]["paymentPayload"]["payload"]["authorization"];
    let nonce = authorization["nonce"].as_str().unwrap();
    let service = world.service_with(&[("QUITTANCE_PANIC_ON", nonce)]).await;
    world.pause_wallets().await;
    let mut asked = Vec::new();
    for (n, payment) in (1..).zip(&payments) {
        asked.push(settle_in_background(&service, payment));
        world.until("select count(*) from settlement", n).await;
    }
    let poisoned = asked.remove(0);
    world.node.call("evm_setIntervalMining", serde_json::json!([1])).await;
    let began = world.node.block_number().await;
    world.resume_wallets().await;
    for task in asked {
        let answer = task.await.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{answer}");
    }
    let n_blocks = world.node.block_number().await - began;
    println!("the others were paid after {n_blocks} blocks");
    assert!(n_blocks <= N_BLOCKS_MAX, "the others were paid after {n_blocks} blocks");
    assert!(service.log().contains("could not be encoded"), "{}", service.log());
    // It stays claimed, nobody says that it failed, and the wallet works on.
    let mut paid = payments[1..].to_vec();
    for n in 4..8 {
        let payment = world.payment(n, 1_000);
        let answer = service.settle(&payment).await;
        assert_eq!(answer["success"], true, "{answer}");
        paid.push(payment);
    }
    assert_eq!(world.count("select count(*) from settlement where status = 'claimed'").await, 1);
    assert_eq!(service.operations("/readyz").await.status, 200);
    poisoned.abort();
    world.check_paid_once(&paid).await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
