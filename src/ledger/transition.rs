//! The arrows of `SettlementStatus`. Each changes the row, appends the event and moves the money.

use std::collections::HashMap;

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

/// `claimed` → `submitted`: one signed transaction carries them. `false` if one of them was not
/// `claimed`: then nothing of it may be committed.
pub async fn submit(
    conn: &mut PgConnection,
    settlement_ids: &[SettlementId],
    transaction_hash: B256,
) -> Result<bool, DbError> {
    let moved = sqlx::query!(
        "
        with moved as (
            update settlement
            set status = 'submitted', n_transactions = n_transactions + 1,
                n_alone = n_alone + case when cardinality($1::uuid[]) = 1 then 1 else 0 end,
                reserved_until = '-infinity', updated_at = now()
            where settlement_id in (
                select settlement_id from settlement
                where settlement_id = any($1) and status = 'claimed'
                order by settlement_id
                for update)
            returning settlement_id)
        insert into event (settlement_id, status_from, status_to, transaction_hash)
        select settlement_id, 'claimed', 'submitted', $2 from moved order by settlement_id
        ",
        &uuids(settlement_ids),
        transaction_hash.as_slice(),
    )
    .execute(conn)
    .await
    .during("mark settlements submitted")?;
    Ok(usize::try_from(moved.rows_affected()) == Ok(settlement_ids.len()))
}

/// A settlement that is proven paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Which settlement.
    pub settlement_id: SettlementId,
    /// What proves it.
    pub evidence: Evidence,
    /// Whether one of our own attempts made the evidence.
    pub by_us: bool,
}

/// To `included`. Returns which of them came to be so; the others were already.
pub async fn include(
    conn: &mut PgConnection,
    chain_id: ChainId,
    proofs: &[Proof],
) -> Result<Vec<SettlementId>, DbError> {
    let ids: Vec<SettlementId> = proofs.iter().map(|proof| proof.settlement_id).collect();
    let from = lock(conn, &ids).await?;
    let from_of = |proof: &Proof| {
        let from = from.get(&proof.settlement_id).copied();
        from.filter(|from| from.may_become(SettlementStatus::Included))
    };
    let included: Vec<(&Proof, SettlementStatus)> =
        proofs.iter().filter_map(|proof| Some((proof, from_of(proof)?))).collect();
    if included.is_empty() {
        return Ok(Vec::new());
    }
    write_included(conn, chain_id, &included).await?;
    let posted: Vec<_> = included
        .iter()
        .map(|(proof, _)| (proof.settlement_id, Some(proof.evidence.block_hash)))
        .collect();
    entry::payments(conn, Kind::Post, &posted).await?;
    Ok(posted.into_iter().map(|(settlement_id, _)| settlement_id).collect())
}

/// The rows, the evidence and the events, in one statement.
async fn write_included(
    conn: &mut PgConnection,
    chain_id: ChainId,
    included: &[(&Proof, SettlementStatus)],
) -> Result<(), DbError> {
    let ids: Vec<Uuid> = included.iter().map(|(proof, _)| proof.settlement_id.as_uuid()).collect();
    let from: Vec<String> = included.iter().map(|(_, from)| from.as_str().to_owned()).collect();
    let by_us: Vec<bool> = included.iter().map(|(proof, _)| proof.by_us).collect();
    let evidence = || included.iter().map(|(proof, _)| &proof.evidence);
    let transactions: Vec<Vec<u8>> = evidence().map(|e| e.transaction_hash.to_vec()).collect();
    let blocks: Vec<Vec<u8>> = evidence().map(|e| e.block_hash.to_vec()).collect();
    let heights = evidence().map(|e| db::height(e.block_number)).collect::<Result<Vec<_>, _>>()?;
    let logs = evidence().map(|e| db::height(e.log_index)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query!(
        "
        with proof as (
            select * from unnest($2::uuid[], $3::text[], $4::boolean[], $5::bytea[], $6::bytea[],
                    $7::bigint[], $8::bigint[])
                as proof (settlement_id, status_from, by_us, transaction_hash, block_hash,
                    block_number, log_index)),
        included as (
            update settlement
            set status = 'included', failure_reason = null, failure_message = null,
                transaction_hash = proof.transaction_hash, block_hash = proof.block_hash,
                block_number = proof.block_number, updated_at = now()
            from proof where settlement.settlement_id = proof.settlement_id),
        recorded as (
            insert into evidence (chain_id, block_hash, log_index, block_number, transaction_hash,
                settlement_id, by_us)
            select $1, block_hash, log_index, block_number, transaction_hash, settlement_id, by_us
            from proof
            on conflict (chain_id, block_hash, log_index) do update set orphaned_at = null)
        insert into event (settlement_id, status_from, status_to, transaction_hash, block_number,
            block_hash, detail)
        select settlement_id, status_from, 'included', transaction_hash, block_number, block_hash,
            case when not by_us then 'somebody else submitted the authorization' end
        from proof order by settlement_id
        ",
        chain_id.to_string(),
        &ids,
        &from,
        &by_us,
        &transactions,
        &blocks,
        &heights,
        &logs,
    )
    .execute(conn)
    .await
    .during("mark settlements included")?;
    Ok(())
}

/// From one of `expected` to `failed`: proven that it cannot be paid. `false`, and nothing is written,
/// if it stands elsewhere by now: the proof was of another state.
pub async fn fail(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    expected: &[SettlementStatus],
    refusal: &Refusal,
) -> Result<bool, DbError> {
    let from = lock_one(conn, settlement_id).await?;
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
    entry::payments(conn, Kind::Void, &[(settlement_id, None)]).await?;
    Ok(true)
}

/// `submitted` → `claimed`: its transaction was mined without evidence, and it may still be paid.
/// Nothing is written if it stands elsewhere by now, or another transaction of ours carries it.
pub async fn requeue(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    why: &str,
) -> Result<(), DbError> {
    let from = lock_one(conn, settlement_id).await?;
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
        let from = lock_one(conn, settlement_id).await?;
        let to = match has_open_transaction(conn, settlement_id).await? {
            true => SettlementStatus::Submitted,
            false => SettlementStatus::Claimed,
        };
        set_status(conn, settlement_id, to).await?;
        let event = Event::to(to).because("a reorganization removed the block that proved it");
        event::append(conn, settlement_id, Some(from), &event).await?;
        let block_hash = db::hash(&row.block_hash)?;
        entry::payments(conn, Kind::Reverse, &[(settlement_id, Some(block_hash))]).await?;
    }
    Ok(orphaned.len())
}

/// `included` → `safe` → `finalized`, for evidence at or below those heights. Returns how many moved.
pub async fn promote(
    conn: &mut PgConnection,
    chain_id: ChainId,
    safe: u64,
    finalized: u64,
) -> Result<u64, DbError> {
    let mut n_promoted = 0_u64;
    for (from, to, number) in [
        (SettlementStatus::Included, SettlementStatus::Safe, safe),
        (SettlementStatus::Safe, SettlementStatus::Finalized, finalized),
    ] {
        let promoted = sqlx::query!(
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
        n_promoted = n_promoted.saturating_add(promoted.rows_affected());
    }
    Ok(n_promoted)
}

/// Locks settlements, in the order of their ids as everywhere, and reads where they stand.
async fn lock(
    conn: &mut PgConnection,
    settlement_ids: &[SettlementId],
) -> Result<HashMap<SettlementId, SettlementStatus>, DbError> {
    let rows = sqlx::query!(
        "
        select settlement_id, status from settlement
        where settlement_id = any($1)
        order by settlement_id
        for update
        ",
        &uuids(settlement_ids),
    )
    .fetch_all(conn)
    .await
    .during("lock settlements")?;
    rows.into_iter()
        .map(|row| {
            let status = SettlementStatus::parse(&row.status)
                .map_err(|e| sqlx::Error::Decode(e.into()))
                .during("lock settlements")?;
            Ok((SettlementId::from_uuid(row.settlement_id), status))
        })
        .collect()
}

async fn lock_one(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
) -> Result<SettlementStatus, DbError> {
    let locked = lock(conn, &[settlement_id]).await?;
    locked.get(&settlement_id).copied().ok_or(sqlx::Error::RowNotFound).during("lock a settlement")
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

fn uuids(settlement_ids: &[SettlementId]) -> Vec<Uuid> {
    settlement_ids.iter().map(|id| id.as_uuid()).collect()
}
