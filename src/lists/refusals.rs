//! The record of payments that were denied, and by which list at which version.
//!
//! Verifications are many and cheap, so what they are denied is written behind them, equal ones counted
//! together.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy::primitives::Address;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    db::{self, DbError, During},
    domain::{Amount, ApiKeyId, AuthorizationNonce, MerchantId},
    telemetry::causes,
};

use super::{Denial, Parties};

/// How often what waits is written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How many denials of different payments may wait; half a kilobyte each.
const N_WAITING_MAX: usize = 10_000;

/// When a payment was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// When it was verified.
    Verify,
    /// When it was to be claimed.
    Claim,
}

impl Stage {
    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Claim => "claim",
        }
    }
}

/// A payment that was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedPayment {
    /// Whose.
    pub merchant_id: MerchantId,
    /// By which key it was asked about.
    pub api_key_id: ApiKeyId,
    /// Whom it names.
    pub parties: Parties,
    /// Of how much.
    pub amount: Amount,
    /// Which of the payer's.
    pub nonce: AuthorizationNonce,
}

/// A row of the record, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalRecord {
    /// Its place in the order of first denials.
    pub refusal_id: i64,
    /// Whose payment.
    pub merchant_id: MerchantId,
    /// By which key it was asked about.
    pub api_key_id: ApiKeyId,
    /// `verify` or `claim`.
    pub stage: String,
    /// Where, in CAIP-2.
    pub chain_id: String,
    /// In what.
    pub asset: Address,
    /// Who pays.
    pub payer: Address,
    /// Who was to be paid.
    pub payee: Address,
    /// How much.
    pub amount: Amount,
    /// Which of the payer's authorizations.
    pub nonce: AuthorizationNonce,
    /// Which party is denied: its part, and who it is.
    pub denied: (String, Address),
    /// What denies it.
    pub list: String,
    /// At which version.
    pub version: String,
    /// When first, in RFC 3339.
    pub first_at: String,
    /// When last.
    pub last_at: String,
    /// How often.
    pub n: u64,
}

impl RefusalRecord {
    /// As the API and commands tell it.
    pub fn shown(&self) -> Value {
        json!({
            "refusalId": self.refusal_id,
            "merchantId": self.merchant_id.as_uuid(),
            "keyId": self.api_key_id.as_uuid(),
            "stage": self.stage,
            "network": self.chain_id,
            "asset": self.asset.to_string(),
            "payer": self.payer.to_string(),
            "payee": self.payee.to_string(),
            "amount": self.amount.to_string(),
            "nonce": self.nonce.to_string(),
            "denied": { "kind": self.denied.0, "address": self.denied.1.to_string() },
            "list": self.list,
            "version": self.version,
            "firstAt": self.first_at,
            "lastAt": self.last_at,
            "times": self.n,
        })
    }
}

/// Which rows to read, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalFilter {
    /// Of this merchant only.
    pub merchant_id: Option<MerchantId>,
    /// After this one, in that order.
    pub after: Option<i64>,
    /// How many at most.
    pub limit: u32,
}

/// What tells denials apart that are written: the texts of a row, in the order of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    merchant_id: MerchantId,
    api_key_id: ApiKeyId,
    stage: Stage,
    chain_id: String,
    asset: Address,
    payer: Address,
    payee: Address,
    amount: String,
    nonce: AuthorizationNonce,
    kind: &'static str,
    address: Address,
    list: String,
    version: String,
}

/// What waits to be written.
#[derive(Debug)]
pub struct Refusals {
    pool: PgPool,
    waiting: Mutex<HashMap<Row, u32>>,
    hurry: Notify,
}

impl Refusals {
    /// The record in that database. Somebody has to [`Refusals::run`] it.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, waiting: Mutex::default(), hurry: Notify::new() }
    }

    /// Keeps a denial to be written: of a claim at once. When too many wait, it is counted as dropped.
    pub fn keep(&self, payment: &RefusedPayment, stage: Stage, denial: &Denial) {
        let row = Row {
            merchant_id: payment.merchant_id,
            api_key_id: payment.api_key_id,
            stage,
            chain_id: payment.parties.chain_id.to_string(),
            asset: payment.parties.asset,
            payer: payment.parties.payer,
            payee: payment.parties.payee,
            amount: payment.amount.to_string(),
            nonce: payment.nonce,
            kind: denial.kind.as_str(),
            address: denial.address,
            list: denial.denier.to_string(),
            version: denial.version.clone(),
        };
        tracing::debug!(
            merchant.id = %payment.merchant_id, chain.id = row.chain_id, list = row.list,
            version = row.version, stage = stage.as_str(), denied = row.kind,
            address = %row.address, "a list denies a payment"
        );
        self.wait(row, 1);
        if stage == Stage::Claim {
            self.hurry.notify_one();
        }
    }

    fn wait(&self, row: Row, n: u32) {
        let mut waiting = self.lock();
        if waiting.len() >= N_WAITING_MAX && !waiting.contains_key(&row) {
            metrics::counter!("quittance_list_refusals_dropped_total").increment(u64::from(n));
            return;
        }
        let counted = waiting.entry(row).or_default();
        *counted = counted.saturating_add(n);
    }

    /// Writes what waits, once a second and at the end.
    pub async fn run(&self, stop: &CancellationToken) {
        metrics::counter!("quittance_list_refusals_dropped_total").increment(0);
        while !stop.is_cancelled() {
            // Whichever comes first.
            tokio::select! {
                () = stop.cancelled() => (),
                () = self.hurry.notified() => (),
                () = tokio::time::sleep(FLUSH_INTERVAL) => (),
            }
            self.flush().await;
        }
    }

    /// Writes what waits. What cannot be written goes on waiting.
    async fn flush(&self) {
        let rows: Vec<(Row, u32)> = self.lock().drain().collect();
        if rows.is_empty() {
            return;
        }
        if let Err(error) = self.write(&rows).await {
            tracing::warn!(error = causes(&error), "denials could not be recorded yet");
            for (row, n) in rows {
                self.wait(row, n);
            }
        }
    }

    async fn write(&self, rows: &[(Row, u32)]) -> Result<(), DbError> {
        let mut conn = self.pool.acquire().await.during("record denials")?;
        insert(&mut conn, rows).await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Row, u32>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn insert(conn: &mut PgConnection, rows: &[(Row, u32)]) -> Result<(), DbError> {
    let texts = |read: fn(&Row) -> String| -> Vec<String> {
        rows.iter().map(|(row, _)| read(row)).collect()
    };
    let addresses = |read: fn(&Row) -> Address| -> Vec<Vec<u8>> {
        rows.iter().map(|(row, _)| read(row).to_vec()).collect()
    };
    let nonces: Vec<Vec<u8>> = rows.iter().map(|(row, _)| row.nonce.as_bytes().to_vec()).collect();
    // In one order everywhere, so that two processes which write the same rows cannot deadlock.
    sqlx::query!(
        "
        insert into list_refusal as kept (merchant_id, api_key_id, stage, chain_id, asset, payer,
            payee, amount, nonce, kind, address, list, version, n)
        select merchant_id, api_key_id, stage, chain_id, asset, payer, payee, amount::numeric,
            nonce, kind, address, list, version, n
        from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bytea[],
            $7::bytea[], $8::text[], $9::bytea[], $10::text[], $11::bytea[], $12::text[],
            $13::text[], $14::bigint[])
            as waiting (merchant_id, api_key_id, stage, chain_id, asset, payer, payee, amount,
                nonce, kind, address, list, version, n)
        order by payer, nonce, chain_id, asset, payee, amount, api_key_id, stage, list, version
        on conflict on constraint list_refusal_key do update
            set n = kept.n + excluded.n, last_at = now()
        ",
        &rows.iter().map(|(row, _)| row.merchant_id.as_uuid()).collect::<Vec<_>>(),
        &rows.iter().map(|(row, _)| row.api_key_id.as_uuid()).collect::<Vec<_>>(),
        &texts(|row| row.stage.as_str().to_owned()),
        &texts(|row| row.chain_id.clone()),
        &addresses(|row| row.asset),
        &addresses(|row| row.payer),
        &addresses(|row| row.payee),
        &texts(|row| row.amount.clone()),
        &nonces,
        &texts(|row| row.kind.to_owned()),
        &addresses(|row| row.address),
        &texts(|row| row.list.clone()),
        &texts(|row| row.version.clone()),
        &rows.iter().map(|(_, n)| i64::from(*n)).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await
    .during("record denials")?;
    Ok(())
}

/// Rows of the record, the newest first.
pub async fn refusals(
    conn: &mut PgConnection,
    filter: &RefusalFilter,
) -> Result<Vec<RefusalRecord>, DbError> {
    let rows = sqlx::query!(
        r#"
        select refusal_id, merchant_id, api_key_id, stage, chain_id, asset, payer, payee,
            amount::text as "amount!", nonce, kind, address, list, version, n,
            rfc3339(first_at) as "first_at!",
            rfc3339(last_at) as "last_at!"
        from list_refusal
        where ($1::uuid is null or merchant_id = $1) and ($2::bigint is null or refusal_id < $2)
        order by refusal_id desc
        limit $3
        "#,
        filter.merchant_id.map(MerchantId::as_uuid),
        filter.after,
        i64::from(filter.limit),
    )
    .fetch_all(conn)
    .await
    .during("read denials")?;
    let records = rows.into_iter().map(|row| {
        Ok(RefusalRecord {
            refusal_id: row.refusal_id,
            merchant_id: MerchantId::from_uuid(row.merchant_id),
            api_key_id: ApiKeyId::from_uuid(row.api_key_id),
            stage: row.stage,
            chain_id: row.chain_id,
            asset: db::address(&row.asset)?,
            payer: db::address(&row.payer)?,
            payee: db::address(&row.payee)?,
            amount: db::amount(&row.amount)?,
            nonce: db::authorization_nonce(&row.nonce)?,
            denied: (row.kind, db::address(&row.address)?),
            list: row.list,
            version: row.version,
            first_at: row.first_at,
            last_at: row.last_at,
            n: db::number(row.n)?,
        })
    });
    records.collect()
}
