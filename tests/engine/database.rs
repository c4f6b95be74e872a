//! Postgres goes away in the middle of things.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    settle_in_background,
    support::{DATABASE_URL, RPC_URL, World},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_commit_was_not_acknowledged_is_paid_once_and_told_to_its_retry() {
    let world = World::stepped().await;
    let (pg, proxy) = (world.pg_proxy().await, world.proxy());
    let service = world.service_with(&[(DATABASE_URL, &pg.url), (RPC_URL, &proxy.url)]).await;
    let (kept, lost) = (world.payment(0, 1_000), world.payment(1, 2_000));
    pg.cut_after_commit("insert into settlement", 1);
    let answer = service.post("/settle", &kept).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    pg.cut_before_commit("insert into settlement", 1);
    let answer = service.post("/settle", &lost).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(pg.n_cuts(), 2);
    // The one that reached the books is paid without its caller.
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    assert_eq!(world.count("select count(*) from settlement").await, 1);
    world.until("select count(*) from settlement where answer_held_until > now()", 0).await;
    assert_eq!(service.settle(&kept).await["success"], true);
    let asked = settle_in_background(&service, &lost);
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(asked.await.unwrap().expect("an answer")["success"], true);
    world.check_paid_once(&[kept, lost]).await;
    world.check_sent(&[&proxy]).await;
    world.check_at_rest().await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_commit_was_not_acknowledged_is_read_back_before_it_is_sent() {
    let world = World::stepped().await;
    let (pg, proxy) = (world.pg_proxy().await, world.proxy());
    let service = world.service_with(&[(DATABASE_URL, &pg.url), (RPC_URL, &proxy.url)]).await;
    let payments = [world.payment(0, 1_000), world.payment(1, 2_000)];
    for (n, payment) in (1..).zip(&payments) {
        if n == 1 {
            pg.cut_after_commit("insert into transaction ", 1);
        } else {
            pg.cut_before_commit("insert into transaction ", 1);
        }
        let asked = settle_in_background(&service, payment);
        world.node.until_pending(1).await;
        assert_eq!(pg.n_cuts(), n);
        world.node.mine(1).await;
        let answer = asked.await.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{answer}");
    }
    // One stored transaction each, whether the lost commit had been made or not.
    assert_eq!(world.count("select count(*) from attempt").await, 2);
    world.check_paid_once(&payments).await;
    world.check_sent(&[&proxy]).await;
    world.check_at_rest().await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_whose_commit_was_not_acknowledged_is_applied_once() {
    let world = World::stepped().await;
    let pg = world.pg_proxy().await;
    let service = world.service_with(&[(DATABASE_URL, &pg.url)]).await;
    let payments = [world.payment(0, 1_000), world.payment(1, 2_000)];
    for (n, payment) in (1..).zip(&payments) {
        let asked = settle_in_background(&service, payment);
        world.node.until_pending(1).await;
        if n == 1 {
            pg.cut_after_commit("update chain_head set number", 1);
        } else {
            pg.cut_before_commit("update chain_head set number", 1);
        }
        world.node.mine(1).await;
        let answer = asked.await.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{answer}");
        assert_eq!(pg.n_cuts(), n);
    }
    let posted = "select count(*) from ledger_entry where subject = 'payment' and kind = 'post'";
    assert_eq!(world.count(posted).await, 2);
    assert_eq!(world.count("select count(*) from evidence").await, 2);
    world.check_paid_once(&payments).await;
    world.check_at_rest().await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_answered_by_the_poll_when_nobody_can_listen() {
    let world = World::stepped().await;
    let service = world.service().await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where query ilike 'listen %'";
    world.until(kill, 1).await;
    // Whoever listens again is cut again.
    let books = world.books.clone();
    let killer = tokio::spawn(async move {
        loop {
            let _ = sqlx::query(kill).execute(&books).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mined = Instant::now();
    world.node.mine(1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    assert!(mined.elapsed() < Duration::from_secs(5), "{:?}", mined.elapsed());
    killer.abort();
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
