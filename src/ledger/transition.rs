//! The arrows of `SettlementStatus`. Each changes the row, appends the event and moves the money.

use alloy::primitives::B256;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::{ChainId, Evidence, Refusal, SettlementId, SettlementStatus},
};

use super::{
    entry::{self, Kind},
    event::{self, Event},
};

/// `claimed` → `submitted`: a signed transaction carries it. `false` if it was not `claimed`.
pub async fn submit(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    transaction_hash: B256,
) -> Result<bool, DbError> {
    let moved = sqlx::query!(
        "
        update settlement
        set status = 'submitted', n_transactions = n_transactions + 1, updated_at = now()
        where settlement_id = $1 and status = 'claimed'
        ",
        settlement_id.as_uuid(),
    )
    .execute(&mut *conn)
    .await
    .during("mark a settlement submitted")?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    let event = Event::to(SettlementStatus::Submitted).of_transaction(transaction_hash);
    event::append(conn, settlement_id, Some(SettlementStatus::Claimed), &event).await?;
    Ok(true)
}

/// To `included`: the payment is proven by `evidence`, which one of our own attempts made or not.
/// `false`, and nothing is written, if it is included already.
pub async fn include(
    conn: &mut PgConnection,
    chain_id: ChainId,
    settlement_id: SettlementId,
    evidence: &Evidence,
    by_us: bool,
) -> Result<bool, DbError> {
    let from = lock(conn, settlement_id).await?;
    if !from.may_become(SettlementStatus::Included) {
        return Ok(false);
    }
    sqlx::query!(
        "
        update settlement
        set status = 'included', failure_reason = null, failure_message = null,
            transaction_hash = $2, block_hash = $3, block_number = $4, updated_at = now()
        where settlement_id = $1
        ",
        settlement_id.as_uuid(),
        evidence.transaction_hash.as_slice(),
        evidence.block_hash.as_slice(),
        db::height(evidence.block_number)?,
    )
    .execute(&mut *conn)
    .await
    .during("mark a settlement included")?;
    sqlx::query!(
        "
        insert into evidence (chain_id, block_hash, log_index, block_number, transaction_hash,
            settlement_id, by_us)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (chain_id, block_hash, log_index) do update set orphaned_at = null
        ",
        chain_id.to_string(),
        evidence.block_hash.as_slice(),
        db::height(evidence.log_index)?,
        db::height(evidence.block_number)?,
        evidence.transaction_hash.as_slice(),
        settlement_id.as_uuid(),
        by_us,
    )
    .execute(&mut *conn)
    .await
    .during("record evidence")?;
    let mut event = Event::to(SettlementStatus::Included).with_evidence(evidence);
    if !by_us {
        event = event.because("somebody else submitted the authorization");
    }
    event::append(conn, settlement_id, Some(from), &event).await?;
    entry::payment(conn, settlement_id, Kind::Post, Some(evidence.block_hash)).await?;
    Ok(true)
}

/// From one of `expected` to `failed`: proven that it cannot be paid. `false`, and nothing is written,
/// if it stands elsewhere by now: the proof was of another state.
pub async fn fail(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    expected: &[SettlementStatus],
    refusal: &Refusal,
) -> Result<bool, DbError> {
    let from = lock(conn, settlement_id).await?;
    if !expected.contains(&from) {
        return Ok(false);
    }
    sqlx::query!(
        "
        update settlement
        set status = 'failed', failure_reason = $2, failure_message = $3, updated_at = now()
        where settlement_id = $1
        ",
        settlement_id.as_uuid(),
        refusal.reason.as_str(),
        refusal.message,
    )
    .execute(&mut *conn)
    .await
    .during("mark a settlement failed")?;
    let event = Event::to(SettlementStatus::Failed)
        .because(format!("{}: {}", refusal.reason, refusal.message));
    event::append(conn, settlement_id, Some(from), &event).await?;
    entry::payment(conn, settlement_id, Kind::Void, None).await?;
    Ok(true)
}

/// `submitted` → `claimed`: its transaction was mined without evidence, and it may still be paid.
/// Nothing is written if it stands elsewhere by now, or another transaction of ours carries it.
pub async fn requeue(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    why: &str,
) -> Result<(), DbError> {
    let from = lock(conn, settlement_id).await?;
    if from != SettlementStatus::Submitted || has_open_transaction(conn, settlement_id).await? {
        return Ok(());
    }
    set_status(conn, settlement_id, SettlementStatus::Claimed).await?;
    let event = Event::to(SettlementStatus::Claimed).because(why);
    event::append(conn, settlement_id, Some(from), &event).await
}

/// Takes back what blocks above `ancestor` proved: back to `submitted`, or to `claimed` where no
/// transaction of ours is open. Returns how many settlements it concerned.
pub async fn orphan(
    conn: &mut PgConnection,
    chain_id: ChainId,
    ancestor: u64,
) -> Result<usize, DbError> {
    sqlx::query!(
        "
        update evidence set orphaned_at = now()
        where chain_id = $1 and block_number > $2 and orphaned_at is null
        ",
        chain_id.to_string(),
        db::height(ancestor)?,
    )
    .execute(&mut *conn)
    .await
    .during("orphan evidence")?;
    let orphaned = sqlx::query!(
        r#"
        select settlement_id, block_hash as "block_hash!"
        from settlement
        where chain_id = $1 and block_number > $2 and status in ('included', 'safe')
        order by settlement_id
        for update of settlement
        "#,
        chain_id.to_string(),
        db::height(ancestor)?,
    )
    .fetch_all(&mut *conn)
    .await
    .during("find orphaned settlements")?;
    for row in &orphaned {
        let settlement_id = SettlementId::from_uuid(row.settlement_id);
        let from = lock(conn, settlement_id).await?;
        let to = match has_open_transaction(conn, settlement_id).await? {
            true => SettlementStatus::Submitted,
            false => SettlementStatus::Claimed,
        };
        set_status(conn, settlement_id, to).await?;
        let event = Event::to(to).because("a reorganization removed the block that proved it");
        event::append(conn, settlement_id, Some(from), &event).await?;
        entry::payment(conn, settlement_id, Kind::Reverse, Some(db::hash(&row.block_hash)?))
            .await?;
    }
    Ok(orphaned.len())
}

/// `included` → `safe` → `finalized`, for evidence at or below those heights.
pub async fn promote(
    conn: &mut PgConnection,
    chain_id: ChainId,
    safe: u64,
    finalized: u64,
) -> Result<(), DbError> {
    for (from, to, number) in [
        (SettlementStatus::Included, SettlementStatus::Safe, safe),
        (SettlementStatus::Safe, SettlementStatus::Finalized, finalized),
    ] {
        sqlx::query!(
            "
            with promoted as (
                update settlement set status = $3, updated_at = now()
                where chain_id = $1 and status = $2 and block_number <= $4
                returning settlement_id, transaction_hash, block_number, block_hash)
            insert into event (settlement_id, status_from, status_to, transaction_hash, block_number,
                block_hash)
            select settlement_id, $2, $3, transaction_hash, block_number, block_hash from promoted
            ",
            chain_id.to_string(),
            from.as_str(),
            to.as_str(),
            db::height(number)?,
        )
        .execute(&mut *conn)
        .await
        .during("promote settlements")?;
    }
    Ok(())
}

async fn lock(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
) -> Result<SettlementStatus, DbError> {
    let id: Uuid = settlement_id.as_uuid();
    let status = sqlx::query_scalar!(
        "select status from settlement where settlement_id = $1 for update",
        id
    )
    .fetch_one(conn)
    .await
    .during("lock a settlement")?;
    SettlementStatus::parse(&status)
        .map_err(|e| sqlx::Error::Decode(e.into()))
        .during("lock a settlement")
}

async fn has_open_transaction(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"
        select exists (
            select from transaction_item join transaction using (transaction_id)
            where settlement_id = $1 and status = 'open') as "has_open!"
        "#,
        settlement_id.as_uuid(),
    )
    .fetch_one(conn)
    .await
    .during("look for an open transaction of a settlement")
}

async fn set_status(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    status: SettlementStatus,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update settlement
        set status = $2, transaction_hash = null, block_hash = null, block_number = null,
            updated_at = now()
        where settlement_id = $1
        ",
        settlement_id.as_uuid(),
        status.as_str(),
    )
    .execute(conn)
    .await
    .during("set a settlement's status")?;
    Ok(())
}
