//! The database refuses what must never happen, whatever the code above it tries.

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_books_refuse_to_be_changed_or_to_post_twice() {
    let world = World::automine().await;
    let service = world.service().await;
    assert_eq!(service.settle(&world.payment(0, 10_000)).await["success"], true);
    for (statement, complaint) in [
        ("update ledger_entry set amount = 0", "append-only"),
        ("delete from ledger_entry", "append-only"),
        ("truncate ledger_entry", "append-only"),
        ("update event set status_to = 'failed'", "append-only"),
        ("delete from event", "append-only"),
        (
            "insert into ledger_entry (settlement_id, subject, kind, sequence, debit_account,
                credit_account, asset, amount, block_hash)
             select settlement_id, subject, kind, 1, debit_account, credit_account, asset, amount,
                block_hash from ledger_entry where subject = 'payment' and kind = 'post'",
            "would be posted 2 times",
        ),
        (
            "insert into ledger_entry (settlement_id, subject, kind, sequence, debit_account,
                credit_account, asset, amount)
             select settlement_id, 'payment', 'post', 9, 'a', 'b', asset, amount
                from ledger_entry where kind = 'post' and subject = 'payment'",
            "ledger_entry_evidence_check",
        ),
        ("update settlement set status = 'claimed' where status = 'included'", "evidence_check"),
        (
            "update settlement set status = 'failed', failure_reason = 'x', transaction_hash = null,
                block_hash = null, block_number = null",
            "may not go from included to failed",
        ),
        ("update settlement set answered_at = null", "was answered already"),
        (
            "insert into settlement select (s).* from (select s from settlement s) as copy",
            "settlement_pkey",
        ),
        (
            "insert into transaction (wallet_id, chain_id, account_nonce)
             select wallet_id, chain_id, account_nonce from transaction",
            "transaction_account_nonce_key",
        ),
    ] {
        let refused = sqlx::query(statement).execute(&world.books).await.unwrap_err().to_string();
        assert!(refused.contains(complaint), "{statement}\ngave: {refused}");
    }
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_a_payment_is_an_event_and_an_entry() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, 10_000);
    assert_eq!(service.settle(&payment).await["success"], true);
    let events: Vec<(Option<String>, String, bool)> = sqlx::query_as(
        "select status_from, status_to, transaction_hash is not null from event order by event_id",
    )
    .fetch_all(&world.books)
    .await
    .unwrap();
    let step =
        |from: Option<&str>, to: &str, has_hash| (from.map(str::to_owned), to.to_owned(), has_hash);
    assert_eq!(
        events,
        [
            step(None, "claimed", false),
            step(Some("claimed"), "submitted", true),
            step(Some("submitted"), "included", true),
        ]
    );
    let entries: Vec<(String, String, String, String, String)> = sqlx::query_as(
        "select subject, kind, debit_account, credit_account, amount::text from ledger_entry
         order by subject, ledger_entry_id",
    )
    .fetch_all(&world.books)
    .await
    .unwrap();
    let chain = &world.services.chain;
    let (payer, payee) = (
        format!("payer:{:#x}", chain.payers[0].address),
        format!("payee:{:#x}", chain.payee.address),
    );
    assert_eq!(entries.len(), 3, "{entries:?}");
    assert_eq!(entries[0].2, format!("wallet:{:#x}", chain.wallet.address));
    let payments: Vec<_> = entries[1..]
        .iter()
        .map(|e| (e.1.as_str(), e.2.as_str(), e.3.as_str(), e.4.as_str()))
        .collect();
    assert_eq!(
        payments,
        [
            ("pending", payer.as_str(), payee.as_str(), "10000"),
            ("post", payer.as_str(), payee.as_str(), "10000"),
        ]
    );
    service.stop().await;
    world.stop().await;
}
