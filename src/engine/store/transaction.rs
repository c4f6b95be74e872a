//! Transactions and their attempts.

use alloy::primitives::{Address, B256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    chain::Receipt,
    db::{self, DbError, During},
    domain::{ChainId, SettlementId},
};

use super::super::{policy::fees::Fees, wallet::Signed};

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Purpose {
    /// Settlements that were not sent before.
    Pay,
    /// Settlements that a transaction left unpaid.
    Retry,
    /// A contract.
    Deploy,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pay => "pay",
            Self::Retry => "retry",
            Self::Deploy => "deploy",
        }
    }
}

/// A transaction that no block has resolved, with its newest attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct OpenTransaction {
    pub(in crate::engine) transaction_id: i64,
    pub(in crate::engine) account_nonce: u64,
    /// The newest attempt.
    pub(in crate::engine) hash: B256,
    pub(in crate::engine) gas_limit: u64,
    pub(in crate::engine) is_cancelled: bool,
    /// The highest offers over all attempts.
    pub(in crate::engine) offered: Fees,
    pub(in crate::engine) is_retry: bool,
    /// Whether everything it carries is decided without it.
    pub(in crate::engine) is_useless: bool,
}

/// A wallet's open transactions in the order of their account nonces.
pub(in crate::engine) async fn open_transactions(
    conn: &mut PgConnection,
    wallet_id: i32,
) -> Result<Vec<OpenTransaction>, DbError> {
    let rows = sqlx::query!(
        r#"
        select transaction_id, account_nonce, purpose, transaction_hash, gas_limit,
            kind = 'cancel' as "is_cancelled!", highest.fee as "fee!",
            highest.priority_fee as "priority_fee!",
            purpose <> 'deploy' and not exists (
                select from transaction_item join settlement using (settlement_id)
                where transaction_item.transaction_id = transaction.transaction_id
                    and settlement.status = 'submitted') as "is_useless!"
        from transaction
            cross join lateral (
                select transaction_hash, gas_limit, kind from attempt
                where attempt.transaction_id = transaction.transaction_id
                order by sequence desc limit 1) as newest
            cross join lateral (
                select max(fee_wei_max)::text as fee, max(priority_fee_wei_max)::text as priority_fee
                from attempt
                where attempt.transaction_id = transaction.transaction_id) as highest
        where wallet_id = $1 and status = 'open'
        order by account_nonce
        "#,
        wallet_id,
    )
    .fetch_all(conn)
    .await
    .during("read open transactions")?;
    rows.into_iter()
        .map(|row| {
            Ok(OpenTransaction {
                transaction_id: row.transaction_id,
                account_nonce: db::number(row.account_nonce)?,
                hash: db::hash(&row.transaction_hash)?,
                gas_limit: db::number(row.gas_limit)?,
                is_cancelled: row.is_cancelled,
                offered: Fees {
                    fee_wei_max: fee(&row.fee)?,
                    priority_fee_wei_max: fee(&row.priority_fee)?,
                },
                is_retry: row.purpose == "retry",
                is_useless: row.is_useless,
            })
        })
        .collect()
}

fn fee(text: &str) -> Result<u128, DbError> {
    text.parse::<u128>()
        .map_err(|error| sqlx::Error::Decode(error.into()))
        .during("read a stored fee")
}

/// The signed bytes of an attempt.
pub(in crate::engine) async fn raw_attempt(
    conn: &mut PgConnection,
    hash: B256,
) -> Result<Vec<u8>, DbError> {
    sqlx::query_scalar!("select raw from attempt where transaction_hash = $1", hash.as_slice())
        .fetch_one(conn)
        .await
        .during("read an attempt")
}

/// The bytes of the first attempt that was no cancellation: what the transaction is to do.
pub(in crate::engine) async fn payload_of(
    conn: &mut PgConnection,
    transaction_id: i64,
) -> Result<Vec<u8>, DbError> {
    sqlx::query_scalar!(
        "
        select raw from attempt where transaction_id = $1 and kind = 'payload'
        order by sequence limit 1
        ",
        transaction_id,
    )
    .fetch_one(conn)
    .await
    .during("read a transaction's first attempt")
}

/// Stores another attempt of a transaction. `false`, and nothing is stored, if the transaction is not
/// open any more.
pub(in crate::engine) async fn store_attempt(
    conn: &mut PgConnection,
    transaction_id: i64,
    signed: &Signed,
    fees: Fees,
    gas_limit: u64,
    is_cancellation: bool,
) -> Result<bool, DbError> {
    let stored = sqlx::query!(
        "
        insert into attempt (transaction_hash, transaction_id, sequence, raw, fee_wei_max,
            priority_fee_wei_max, gas_limit, kind)
        select $1, transaction_id,
            (select max(sequence) + 1 from attempt
                where attempt.transaction_id = transaction.transaction_id),
            $3, $4::text::numeric, $5::text::numeric, $6, $7
        from transaction where transaction_id = $2 and status = 'open'
        ",
        signed.hash.as_slice(),
        transaction_id,
        signed.raw,
        fees.fee_wei_max.to_string(),
        fees.priority_fee_wei_max.to_string(),
        db::height(gas_limit)?,
        if is_cancellation { "cancel" } else { "payload" },
    )
    .execute(conn)
    .await
    .during("store another attempt")?;
    Ok(stored.rows_affected() == 1)
}

/// Marks a wallet's open transactions below `account_nonce`: bytes that we do not know used theirs.
/// Returns what they carried.
pub(in crate::engine) async fn mark_foreign(
    conn: &mut PgConnection,
    wallet_id: i32,
    account_nonce: u64,
) -> Result<Vec<SettlementId>, DbError> {
    let carried = sqlx::query_scalar!(
        r#"
        with used as (
            update transaction set status = 'foreign'
            where wallet_id = $1 and status = 'open' and account_nonce < $2
            returning transaction_id)
        select distinct settlement_id from used join transaction_item using (transaction_id)
        "#,
        wallet_id,
        db::height(account_nonce)?,
    )
    .fetch_all(conn)
    .await
    .during("mark foreign transactions")?;
    Ok(carried.into_iter().map(SettlementId::from_uuid).collect())
}

/// Whether a deployment is open on a chain, from whichever wallet.
pub(in crate::engine) async fn is_deploying(
    conn: &mut PgConnection,
    chain_id: ChainId,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"
        select exists (select from transaction join wallet using (wallet_id)
            where transaction.chain_id = $1 and transaction.status = 'open'
                and transaction.purpose = 'deploy') as "is!"
        "#,
        chain_id.to_string(),
    )
    .fetch_one(conn)
    .await
    .during("look for a deployment")
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
    pub(in crate::engine) purpose: Purpose,
    /// The epoch of the wallet's lease.
    pub(in crate::engine) epoch: i64,
    pub(in crate::engine) settlement_ids: &'a [SettlementId],
}

/// Takes the account nonce and stores the signed bytes that use it. `None` if the
/// nonce is taken or the wallet does not sign any more: nothing is stored then, and the bytes must be
/// thrown away.
pub(in crate::engine) async fn store_transaction(
    conn: &mut PgConnection,
    new: &NewTransaction<'_>,
) -> Result<Option<i64>, DbError> {
    let account_nonce = db::height(new.account_nonce)?;
    let taken = sqlx::query!(
        "
        update wallet set next_account_nonce = next_account_nonce + 1
        where wallet_id = $1 and next_account_nonce = $2 and status = 'active'
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
        insert into transaction (wallet_id, chain_id, account_nonce, purpose, epoch)
        values ($1, $2, $3, $4, $5)
        returning transaction_id
        ",
        new.wallet_id,
        new.chain_id.to_string(),
        account_nonce,
        new.purpose.as_str(),
        new.epoch,
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

/// A transaction of ours that stands in a block and was open until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct MinedTransaction {
    pub(in crate::engine) transaction_id: i64,
    pub(in crate::engine) hash: B256,
    pub(in crate::engine) wallet: Address,
    pub(in crate::engine) settlement_ids: Vec<SettlementId>,
    /// Whether the attempt that was mined pays nobody.
    pub(in crate::engine) is_cancellation: bool,
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
        select transaction_id, transaction_hash, address, kind = 'cancel' as "is_cancellation!", array(
            select settlement_id from transaction_item
            where transaction_item.transaction_id = transaction.transaction_id
            order by item_index) as "settlement_ids!"
        from attempt join transaction using (transaction_id) join wallet using (wallet_id)
        where transaction.chain_id = $1 and transaction.status in ('open', 'foreign')
            and transaction_hash = any($2)
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
                is_cancellation: row.is_cancellation,
            })
        })
        .collect()
}

/// Marks a transaction mined by one of its attempts.
pub(in crate::engine) async fn mark_mined(
    conn: &mut PgConnection,
    transaction_id: i64,
    receipt: &Receipt,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update transaction
        set status = 'mined', mined_hash = $2, block_hash = $3, block_number = $4, gas_used = $5,
            fee_wei = $6::text::numeric, l1_fee_wei = $7::text::numeric
        where transaction_id = $1
        ",
        transaction_id,
        receipt.transaction_hash.as_slice(),
        receipt.block_hash.as_slice(),
        db::height(receipt.block_number)?,
        db::height(receipt.gas_used)?,
        receipt.fee_wei.to_string(),
        receipt.l1_fee_wei.to_string(),
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
        set status = 'open', mined_hash = null, block_hash = null, block_number = null,
            gas_used = null, fee_wei = null, l1_fee_wei = null
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
