//! Postgres goes away in the middle of things.

use serde_json::json;

use crate::{settle_in_background, support::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_was_told_of_trouble_gets_the_answer_with_its_retry() {
    let world = World::stepped().await;
    let service = world.service().await;
    let payment = world.payment(0, 10_000);
    let asked = settle_in_background(&service, &payment);
    world.node.until_pending(1).await;
    // A trigger that stands for books which go away in the moment of telling.
    sqlx::raw_sql(
        "create function go_away() returns trigger language plpgsql as
            $$ begin if new.answered_at is not null then raise exception 'away'; end if; return new; end $$;
         create trigger go_away before update on settlement for each row execute function go_away();",
    )
    .execute(&world.books)
    .await
    .unwrap();
    world.node.mine(1).await;
    let trouble = asked.await.unwrap().expect("an answer");
    assert_eq!(trouble["errorReason"], json!("unexpected_settle_error"), "{trouble}");
    sqlx::raw_sql("drop trigger go_away on settlement").execute(&world.books).await.unwrap();
    world.until("select count(*) from settlement where answer_held_until > now()", 0).await;
    let answer = service.settle(&payment).await;
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(service.settle(&payment).await["errorReason"], json!("duplicate_settlement"));
    service.stop().await;
    world.stop().await;
}

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
