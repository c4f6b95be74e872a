//! Postgres goes away in the middle of things.

use crate::{settle_in_background, support::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_survives_that_every_connection_to_the_database_is_cut() {
    let world = World::stepped().await;
    let service = world.service().await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    assert!(world.count(cut).await > 0);
    world.node.mine(1).await;
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    // The listener was cut too: the poll tells the caller.
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    let second = settle_in_background(&service, &world.payment(1, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(second.await.unwrap().expect("an answer")["success"], true);
    assert_eq!(world.payee_balance().await, 20_000);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
