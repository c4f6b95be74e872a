//! Who is told. Success is handed out once, and one caller at a time holds the right to it.

use std::time::Duration;

use alloy::primitives::B256;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::SettlementId,
};

/// How long the right to be told lasts without renewal: a caller whose process died loses it then.
pub const ANSWER_RIGHT: Duration = Duration::from_secs(6);

/// Takes the right to be told, if nobody holds it and success was not handed out.
pub async fn take_answer_right(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
) -> Result<bool, DbError> {
    let taken = sqlx::query!(
        "
        update settlement set answer_held_until = now() + make_interval(secs => $2)
        where settlement_id = $1 and answered_at is null
            and (answer_held_until is null or answer_held_until < now())
        ",
        settlement_id.as_uuid(),
        ANSWER_RIGHT.as_secs_f64(),
    )
    .execute(conn)
    .await
    .during("take the right to an answer")?;
    Ok(taken.rows_affected() == 1)
}

/// Keeps the rights of callers that are still waiting.
///
/// Passes over rows that somebody is deciding at this moment: waiting for them while holding others
/// could deadlock with the follower.
pub async fn renew_answer_rights(
    conn: &mut PgConnection,
    settlement_ids: &[SettlementId],
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update settlement set answer_held_until = now() + make_interval(secs => $2)
        where settlement_id in (
            select settlement_id from settlement
            where settlement_id = any($1) and answered_at is null and answer_held_until is not null
            for update skip locked)
        ",
        &uuids(settlement_ids),
        ANSWER_RIGHT.as_secs_f64(),
    )
    .execute(conn)
    .await
    .during("renew rights to answers")?;
    Ok(())
}

/// Gives rights back: their holders were told `settlement_pending`, or went away.
///
/// Passes over rows that somebody is deciding, like [`renew_answer_rights`]: those rights lapse.
pub async fn release_answer_rights(
    conn: &mut PgConnection,
    settlement_ids: &[SettlementId],
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update settlement set answer_held_until = null
        where settlement_id in (
            select settlement_id from settlement
            where settlement_id = any($1) and answer_held_until is not null
            for update skip locked)
        ",
        &uuids(settlement_ids),
    )
    .execute(conn)
    .await
    .during("release rights to answers")?;
    Ok(())
}

/// Hands out success, with the transaction of the evidence that stands as deep as was asked for. To
/// exactly one caller, ever.
pub async fn hand_out_success(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
) -> Result<Option<B256>, DbError> {
    let handed_out = sqlx::query_scalar!(
        r#"
        update settlement set answered_at = now(), answer_held_until = null
        where settlement_id = $1 and answered_at is null
            and ((status = 'included' and wait_for = 'included')
                or (status = 'safe' and wait_for in ('included', 'safe'))
                or status = 'finalized')
        returning transaction_hash as "transaction_hash!"
        "#,
        settlement_id.as_uuid(),
    )
    .fetch_optional(conn)
    .await
    .during("hand out success")?;
    handed_out.as_deref().map(db::hash).transpose()
}

/// Which of those settlements have an outcome, as deep as was asked for.
pub async fn decided(
    conn: &mut PgConnection,
    settlement_ids: &[SettlementId],
) -> Result<Vec<SettlementId>, DbError> {
    let found = sqlx::query_scalar!(
        "
        select settlement_id from settlement
        where settlement_id = any($1)
            and ((status = 'included' and wait_for = 'included')
                or (status = 'safe' and wait_for in ('included', 'safe'))
                or status in ('finalized', 'failed'))
        ",
        &uuids(settlement_ids),
    )
    .fetch_all(conn)
    .await
    .during("look for outcomes")?;
    Ok(found.into_iter().map(SettlementId::from_uuid).collect())
}

fn uuids(settlement_ids: &[SettlementId]) -> Vec<Uuid> {
    settlement_ids.iter().map(|id| id.as_uuid()).collect()
}
