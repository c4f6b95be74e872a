//! The same payment is asked for again and again, or one payer pays several times at once.
//!
//! The same payment cannot be twice in one batch: it is claimed under a unique key (books.rs).

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;

use crate::{
    settle_in_background,
    support::{N_IN_FLIGHT_MAX, RPC_URL, World},
};

const N_REQUESTS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_equal_requests_to_two_replicas_are_one_payment_and_one_success() {
    let world = World::stepped().await;
    let proxies = [world.proxy(), world.proxy()];
    let settings = proxies.each_ref().map(|proxy| [(RPC_URL, &*proxy.url)]);
    let replicas = world.replicas_with(&[&settings[0][..], &settings[1][..]]).await;
    let payment = world.payment(0, 10_000);
    let mut asked: FuturesUnordered<_> =
        replicas.iter().cycle().take(N_REQUESTS).map(|replica| replica.settle(&payment)).collect();
    // Whoever does not hold the right to the answer is told at once.
    let mut answers: Vec<Value> = asked.by_ref().take(N_REQUESTS - 1).collect().await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    answers.extend(asked.next().await);
    drop(asked);
    let (paid, others): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer["success"] == true);
    assert_eq!((paid.len(), others.len()), (1, N_REQUESTS - 1), "{answers:?}");
    for answer in others {
        assert_eq!(answer["errorReason"], "duplicate_settlement", "{answer}");
    }
    assert_eq!(world.count("select count(*) from settlement").await, 1);
    assert_eq!(world.count("select count(*) from attempt").await, 1);
    world.check_sent(&[&proxies[0], &proxies[1]]).await;
    world.check_paid_once(&[payment]).await;
    world.check_at_rest().await;
    world.check_books().await;
    for replica in replicas {
        replica.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_payments_of_one_payer_in_one_batch_are_both_paid() {
    let world = World::stepped().await;
    let service = world.service_with(&[(N_IN_FLIGHT_MAX, "1")]).await;
    let payments = [
        world.payment(0, 1_000),
        world.payment(1, 2_000),
        world.payment(1, 2_000),
        world.payment(2, 4_000),
    ];
    let mut asked = vec![settle_in_background(&service, &payments[0])];
    world.node.until_pending(1).await;
    // They wait for the only place, and then share it.
    asked.extend(payments[1..].iter().map(|payment| settle_in_background(&service, payment)));
    world.until("select count(*) from settlement where status = 'claimed'", 3).await;
    world.node.mine(1).await;
    world.until("select count(*) from transaction where status = 'open'", 1).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    for task in asked {
        let answer = task.await.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{answer}");
    }
    assert_eq!(world.count("select count(*) from transaction").await, 2);
    world.check_paid_once(&payments).await;
    world.check_at_rest().await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_callers_that_both_believe_in_their_right_one_is_told() {
    let world = World::stepped().await;
    let service = world.service().await;
    let payment = world.payment(0, 10_000);
    let first = settle_in_background(&service, &payment);
    world.node.until_pending(1).await;
    // As if the first caller's process had slept for longer than its right lasts.
    let lapse = "update settlement set answer_held_until = null";
    sqlx::query(lapse).execute(&world.books).await.unwrap();
    let second = settle_in_background(&service, &payment);
    world.until("select count(*) from settlement where answer_held_until > now()", 1).await;
    world.node.mine(1).await;
    let answers = [first.await.unwrap().expect("an answer"), second.await.unwrap().unwrap()];
    let n_told = answers.iter().filter(|answer| answer["success"] == true).count();
    assert_eq!(n_told, 1, "{answers:?}");
    let duplicate = answers.iter().find(|answer| answer["success"] != true).unwrap();
    assert_eq!(duplicate["errorReason"], "duplicate_settlement", "{duplicate}");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
