//! Reads what a run has left: Postgres' rows, the chain's blocks, the proxies' logs.

use alloy::primitives::{Address, B256, U256};
use sqlx::{FromRow, PgPool, Row as _, postgres::PgRow};

use crate::{
    record::{
        Attempt, Books, Entry, Event, Evidence, Identity, Sent, Settlement, Transaction, Wallet,
    },
    support::{self, Proxy},
};

/// All rows, in the order of their ids.
pub(crate) async fn books(pool: &PgPool) -> Books {
    Books {
        settlements: all(
            pool,
            "select settlement_id, payer, authorization_nonce, payee, amount::text as amount,
                least(valid_before, 4000000000)::bigint as valid_before, status, transaction_hash,
                block_hash, n_transactions, n_alone
             from settlement order by settlement_id",
        )
        .await,
        events: all(
            pool,
            "select settlement_id, status_to, transaction_hash, detail,
                (extract(epoch from created_at) * 1000)::bigint as at_ms
             from event order by event_id",
        )
        .await,
        entries: all(
            pool,
            "select settlement_id, subject = 'gas' as is_gas, kind, debit_account, credit_account,
                amount::text as amount, transaction_id, block_hash
             from ledger_entry order by ledger_entry_id",
        )
        .await,
        wallets: all(
            pool,
            "select wallet_id, address, status, next_account_nonce from wallet order by wallet_id",
        )
        .await,
        transactions: all(
            pool,
            "select transaction_id, wallet_id, account_nonce, status, epoch, mined_hash,
                array(select settlement_id from transaction_item
                    where transaction_item.transaction_id = transaction.transaction_id
                    order by item_index) as settlements
             from transaction order by transaction_id",
        )
        .await,
        attempts: all(
            pool,
            "select transaction_hash, transaction_id, raw, gas_limit, fee_wei_max::text as fee_wei_max,
                (extract(epoch from created_at) * 1000)::bigint as created_ms
             from attempt order by transaction_id, sequence",
        )
        .await,
        evidence: all(
            pool,
            "select settlement_id, block_hash, log_index, transaction_hash, by_us
             from evidence where orphaned_at is null",
        )
        .await,
        epochs: sqlx::query_as("select lease_name, epoch from lease")
            .fetch_all(pool)
            .await
            .unwrap()
            .into_iter()
            .collect(),
    }
}

/// What the proxies were handed.
pub(crate) fn sent(proxies: &[Proxy]) -> Vec<Sent> {
    let of_proxy = |sent: support::Sent| {
        let since_epoch = sent.at.duration_since(std::time::UNIX_EPOCH).unwrap();
        Sent {
            at_ms: u64::try_from(since_epoch.as_millis()).unwrap(),
            hash: sent.hash,
            raw: alloy::hex::decode(&sent.raw).unwrap_or_default(),
            was_stored: sent.was_stored,
        }
    };
    proxies.iter().flat_map(Proxy::log).map(of_proxy).collect()
}

async fn all<T>(pool: &PgPool, sql: &'static str) -> Vec<T>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    sqlx::query_as(sql).fetch_all(pool).await.unwrap()
}

fn address(row: &PgRow, column: &str) -> sqlx::Result<Address> {
    Ok(Address::from_slice(&row.try_get::<Vec<u8>, _>(column)?))
}

fn hash(row: &PgRow, column: &str) -> sqlx::Result<B256> {
    Ok(B256::from_slice(&row.try_get::<Vec<u8>, _>(column)?))
}

fn some_hash(row: &PgRow, column: &str) -> sqlx::Result<Option<B256>> {
    Ok(row.try_get::<Option<Vec<u8>>, _>(column)?.map(|bytes| B256::from_slice(&bytes)))
}

fn amount<T: std::str::FromStr<Err: std::fmt::Debug>>(
    row: &PgRow,
    column: &str,
) -> sqlx::Result<T> {
    Ok(row.try_get::<String, _>(column)?.parse().unwrap())
}

fn number(row: &PgRow, column: &str) -> sqlx::Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap())
}

impl FromRow<'_, PgRow> for Settlement {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("settlement_id")?,
            identity: Identity {
                payer: address(row, "payer")?,
                nonce: hash(row, "authorization_nonce")?,
            },
            payee: address(row, "payee")?,
            amount: amount::<U256>(row, "amount")?,
            valid_before_s: number(row, "valid_before")?,
            status: row.try_get("status")?,
            transaction_hash: some_hash(row, "transaction_hash")?,
            block_hash: some_hash(row, "block_hash")?,
            n_transactions: row.try_get("n_transactions")?,
            n_alone: row.try_get("n_alone")?,
        })
    }
}

impl FromRow<'_, PgRow> for Event {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            settlement: row.try_get("settlement_id")?,
            to: row.try_get("status_to")?,
            transaction_hash: some_hash(row, "transaction_hash")?,
            detail: row.try_get("detail")?,
            at_ms: number(row, "at_ms")?,
        })
    }
}

impl FromRow<'_, PgRow> for Entry {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            settlement: row.try_get("settlement_id")?,
            is_gas: row.try_get("is_gas")?,
            kind: row.try_get("kind")?,
            debit: row.try_get("debit_account")?,
            credit: row.try_get("credit_account")?,
            amount: amount::<U256>(row, "amount")?,
            transaction: row.try_get("transaction_id")?,
            block_hash: some_hash(row, "block_hash")?,
        })
    }
}

impl FromRow<'_, PgRow> for Wallet {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("wallet_id")?,
            address: address(row, "address")?,
            status: row.try_get("status")?,
            next_account_nonce: number(row, "next_account_nonce")?,
        })
    }
}

impl FromRow<'_, PgRow> for Transaction {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("transaction_id")?,
            wallet: row.try_get("wallet_id")?,
            account_nonce: number(row, "account_nonce")?,
            status: row.try_get("status")?,
            epoch: row.try_get("epoch")?,
            mined_hash: some_hash(row, "mined_hash")?,
            settlements: row.try_get("settlements")?,
        })
    }
}

impl FromRow<'_, PgRow> for Attempt {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            hash: hash(row, "transaction_hash")?,
            transaction: row.try_get("transaction_id")?,
            raw: row.try_get("raw")?,
            gas_limit: number(row, "gas_limit")?,
            fee_wei_max: amount(row, "fee_wei_max")?,
            created_ms: number(row, "created_ms")?,
        })
    }
}

impl FromRow<'_, PgRow> for Evidence {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            settlement: row.try_get("settlement_id")?,
            block_hash: hash(row, "block_hash")?,
            log_index: number(row, "log_index")?,
            transaction_hash: hash(row, "transaction_hash")?,
            by_us: row.try_get("by_us")?,
        })
    }
}
