//! Wallets, transactions and their attempts.

use std::time::Duration;

use alloy::primitives::{Address, B256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    chain::Block,
    db::{self, DbError, During},
    domain::{ChainId, SettlementId},
};

use super::super::{fees::Fees, wallet::Signed};

/// How often a settlement is put into a transaction before we stop paying gas for it.
pub(in crate::engine) const N_TRANSACTIONS_MAX: i32 = 3;

/// Until when after its claim a settlement is signed for without another look at the chain.
const FRESH: Duration = Duration::from_secs(2);

/// A wallet's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct WalletRow {
    pub(in crate::engine) wallet_id: i32,
    pub(in crate::engine) next_account_nonce: u64,
}

/// Registers a wallet at `account_nonce` if it is new, and reads its row.
pub(in crate::engine) async fn ensure_wallet(
    conn: &mut PgConnection,
    chain_id: ChainId,
    address: Address,
    account_nonce: u64,
) -> Result<WalletRow, DbError> {
    sqlx::query!(
        "
        insert into wallet (chain_id, address, next_account_nonce) values ($1, $2, $3)
        on conflict (chain_id, address) do nothing
        ",
        chain_id.to_string(),
        address.as_slice(),
        db::height(account_nonce)?,
    )
    .execute(&mut *conn)
    .await
    .during("register a wallet")?;
    let row = sqlx::query!(
        "select wallet_id, next_account_nonce from wallet where chain_id = $1 and address = $2",
        chain_id.to_string(),
        address.as_slice(),
    )
    .fetch_one(conn)
    .await
    .during("read a wallet")?;
    Ok(WalletRow {
        wallet_id: row.wallet_id,
        next_account_nonce: db::number(row.next_account_nonce)?,
    })
}

/// The account nonce of the wallet's next transaction.
pub(in crate::engine) async fn next_account_nonce(
    conn: &mut PgConnection,
    wallet_id: i32,
) -> Result<u64, DbError> {
    let next = sqlx::query_scalar!(
        "select next_account_nonce from wallet where wallet_id = $1",
        wallet_id
    )
    .fetch_one(conn)
    .await
    .during("read the next account nonce")?;
    db::number(next)
}

/// A transaction that no block has resolved, with its newest attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct OpenTransaction {
    pub(in crate::engine) transaction_id: i64,
    pub(in crate::engine) hash: B256,
    pub(in crate::engine) raw: Vec<u8>,
}

/// A wallet's open transactions in the order of their account nonces.
pub(in crate::engine) async fn open_transactions(
    conn: &mut PgConnection,
    wallet_id: i32,
) -> Result<Vec<OpenTransaction>, DbError> {
    let rows = sqlx::query!(
        "
        select distinct on (account_nonce) transaction_id, transaction_hash, raw
        from transaction join attempt using (transaction_id)
        where wallet_id = $1 and status = 'open'
        order by account_nonce, sequence desc
        ",
        wallet_id,
    )
    .fetch_all(conn)
    .await
    .during("read open transactions")?;
    rows.into_iter()
        .map(|row| {
            Ok(OpenTransaction {
                transaction_id: row.transaction_id,
                hash: db::hash(&row.transaction_hash)?,
                raw: row.raw,
            })
        })
        .collect()
}

/// The settlement to send next, and whether its verification is fresh. What was postponed comes after
/// what was not, so that nothing that cannot be paid keeps others waiting.
pub(in crate::engine) async fn next_claimed(
    conn: &mut PgConnection,
    chain_id: ChainId,
) -> Result<Option<(SettlementId, bool)>, DbError> {
    let row = sqlx::query!(
        r#"
        select settlement_id,
            n_transactions = 0 and created_at > now() - make_interval(secs => $3) as "is_fresh!"
        from settlement
        where chain_id = $1 and status = 'claimed' and n_transactions < $2 and not_before <= now()
        order by not_before > created_at, not_before
        limit 1
        "#,
        chain_id.to_string(),
        N_TRANSACTIONS_MAX,
        FRESH.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await
    .during("find the next settlement to send")?;
    Ok(row.map(|row| (SettlementId::from_uuid(row.settlement_id), row.is_fresh)))
}

/// Looks away from a settlement for a while: `delay`, and longer the longer it has waited.
pub(in crate::engine) async fn postpone(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    delay: Duration,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update settlement set not_before = now()
            + greatest(make_interval(secs => $2), least((now() - created_at) / 4, interval '1 minute'))
        where settlement_id = $1
        ",
        settlement_id.as_uuid(),
        delay.as_secs_f64(),
    )
    .execute(conn)
    .await
    .during("postpone a settlement")?;
    Ok(())
}

/// A signed transaction about to be stored.
#[derive(Debug)]
pub(in crate::engine) struct NewTransaction<'a> {
    pub(in crate::engine) wallet_id: i32,
    pub(in crate::engine) chain_id: ChainId,
    pub(in crate::engine) account_nonce: u64,
    pub(in crate::engine) signed: &'a Signed,
    pub(in crate::engine) fees: Fees,
    pub(in crate::engine) gas_limit: u64,
    pub(in crate::engine) settlement_ids: &'a [SettlementId],
}

/// Takes the account nonce and stores the signed bytes that use it. `None` if another process took
/// the nonce first: nothing is stored then and the bytes must be thrown away.
pub(in crate::engine) async fn store_transaction(
    conn: &mut PgConnection,
    new: &NewTransaction<'_>,
) -> Result<Option<i64>, DbError> {
    let account_nonce = db::height(new.account_nonce)?;
    let taken = sqlx::query!(
        "
        update wallet set next_account_nonce = next_account_nonce + 1
        where wallet_id = $1 and next_account_nonce = $2
        ",
        new.wallet_id,
        account_nonce,
    )
    .execute(&mut *conn)
    .await
    .during("take an account nonce")?;
    if taken.rows_affected() == 0 {
        return Ok(None);
    }
    let transaction_id = sqlx::query_scalar!(
        "
        insert into transaction (wallet_id, chain_id, account_nonce) values ($1, $2, $3)
        returning transaction_id
        ",
        new.wallet_id,
        new.chain_id.to_string(),
        account_nonce,
    )
    .fetch_one(&mut *conn)
    .await
    .during("store a transaction")?;
    sqlx::query!(
        "
        insert into attempt (transaction_hash, transaction_id, sequence, raw, fee_wei_max,
            priority_fee_wei_max, gas_limit)
        values ($1, $2, 0, $3, $4::text::numeric, $5::text::numeric, $6)
        ",
        new.signed.hash.as_slice(),
        transaction_id,
        new.signed.raw,
        new.fees.fee_wei_max.to_string(),
        new.fees.priority_fee_wei_max.to_string(),
        db::height(new.gas_limit)?,
    )
    .execute(&mut *conn)
    .await
    .during("store an attempt")?;
    let items: Vec<Uuid> = new.settlement_ids.iter().map(|id| id.as_uuid()).collect();
    sqlx::query!(
        "
        insert into transaction_item (transaction_id, item_index, settlement_id)
        select $1, position - 1, settlement_id
        from unnest($2::uuid[]) with ordinality as item (settlement_id, position)
        ",
        transaction_id,
        &items,
    )
    .execute(conn)
    .await
    .during("store what a transaction carries")?;
    Ok(Some(transaction_id))
}

/// Notes what a node answered. Nothing depends on it.
pub(in crate::engine) async fn note_sent(
    conn: &mut PgConnection,
    hash: B256,
    answer: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "update attempt set sent_at = now(), sent_answer = $2 where transaction_hash = $1",
        hash.as_slice(),
        // Postgres text cannot hold NUL, and the text is a node's.
        answer.replace('\0', ""),
    )
    .execute(conn)
    .await
    .during("note a send")?;
    Ok(())
}

/// The newest attempt of the newest transaction that carries a settlement.
pub async fn latest_attempt(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
) -> Result<Option<B256>, DbError> {
    let hash = sqlx::query_scalar!(
        "
        select transaction_hash
        from transaction_item join attempt using (transaction_id)
        where settlement_id = $1
        order by transaction_id desc, sequence desc
        limit 1
        ",
        settlement_id.as_uuid(),
    )
    .fetch_optional(conn)
    .await
    .during("find the newest attempt of a settlement")?;
    hash.as_deref().map(db::hash).transpose()
}

/// An open transaction of ours that stands in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct MinedTransaction {
    pub(in crate::engine) transaction_id: i64,
    pub(in crate::engine) hash: B256,
    pub(in crate::engine) wallet: Address,
    pub(in crate::engine) settlement_ids: Vec<SettlementId>,
}

/// Which of `hashes` are attempts of our open transactions.
pub(in crate::engine) async fn ours_among(
    conn: &mut PgConnection,
    chain_id: ChainId,
    hashes: &[B256],
) -> Result<Vec<MinedTransaction>, DbError> {
    let hashes: Vec<Vec<u8>> = hashes.iter().map(|hash| hash.to_vec()).collect();
    let rows = sqlx::query!(
        r#"
        select transaction_id, transaction_hash, address, array(
            select settlement_id from transaction_item
            where transaction_item.transaction_id = transaction.transaction_id
            order by item_index) as "settlement_ids!"
        from attempt join transaction using (transaction_id) join wallet using (wallet_id)
        where transaction.chain_id = $1 and status = 'open' and transaction_hash = any($2)
        order by transaction_id
        "#,
        chain_id.to_string(),
        &hashes,
    )
    .fetch_all(conn)
    .await
    .during("find our transactions in a block")?;
    rows.into_iter()
        .map(|row| {
            Ok(MinedTransaction {
                transaction_id: row.transaction_id,
                hash: db::hash(&row.transaction_hash)?,
                wallet: db::address(&row.address)?,
                settlement_ids: row
                    .settlement_ids
                    .into_iter()
                    .map(SettlementId::from_uuid)
                    .collect(),
            })
        })
        .collect()
}

/// Marks a transaction mined by one of its attempts.
pub(in crate::engine) async fn mark_mined(
    conn: &mut PgConnection,
    transaction_id: i64,
    hash: B256,
    block: &Block,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update transaction
        set status = 'mined', mined_hash = $2, block_hash = $3, block_number = $4
        where transaction_id = $1
        ",
        transaction_id,
        hash.as_slice(),
        block.hash.as_slice(),
        db::height(block.number)?,
    )
    .execute(conn)
    .await
    .during("mark a transaction mined")?;
    Ok(())
}

/// Opens again the transactions that were mined above `ancestor`.
pub(in crate::engine) async fn reopen(
    conn: &mut PgConnection,
    chain_id: ChainId,
    ancestor: u64,
) -> Result<Vec<i64>, DbError> {
    sqlx::query_scalar!(
        "
        update transaction
        set status = 'open', mined_hash = null, block_hash = null, block_number = null
        where chain_id = $1 and status = 'mined' and block_number > $2
        returning transaction_id
        ",
        chain_id.to_string(),
        db::height(ancestor)?,
    )
    .fetch_all(conn)
    .await
    .during("reopen transactions")
}
