//! The settlements that wait for a wallet.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::{ChainId, SettlementId},
};

/// How many transactions may carry a settlement alone before we stop paying gas for it.
const N_ALONE_MAX: i32 = 3;
/// Until when after its claim a settlement is signed for without another look at the chain: two blocks
/// of Base, so that who waited for one block is not looked at twice.
const FRESH: Duration = Duration::from_secs(4);
/// How long a wallet has to sign for what it reserved before another may.
const RESERVATION: Duration = Duration::from_secs(2);

/// A settlement that waits for a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Queued {
    pub(in crate::engine) settlement_id: SettlementId,
    /// How many may share its transaction; `None` for as many as fit.
    pub(in crate::engine) n_together_max: Option<usize>,
    /// Whether it was verified a moment ago and never sent.
    pub(in crate::engine) is_fresh: bool,
}

/// What waits, oldest first, with or without what travels in a lane of its own: what a transaction left
/// unpaid, and payers whose code runs.
pub(in crate::engine) async fn queued(
    conn: &mut PgConnection,
    chain_id: ChainId,
    n_max: usize,
    with_retries: bool,
) -> Result<Vec<Queued>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select settlement_id, n_together_max,
            n_transactions = 0 and created_at > now() - make_interval(secs => $4) as "is_fresh!"
        from settlement
        where chain_id = $1 and status = 'claimed' and n_alone < $2 and not_before <= now()
            and reserved_until <= now() and ($5 or (n_together_max is null and payer_kind = 'key'))
        order by not_before
        limit $3
        "#,
        chain_id.to_string(),
        N_ALONE_MAX,
        i64::try_from(n_max).unwrap_or(i64::MAX),
        FRESH.as_secs_f64(),
        with_retries,
    )
    .fetch_all(conn)
    .await
    .during("find settlements to send")?;
    rows.into_iter().map(Queued::try_from).collect()
}

/// The same, reserved for a moment: a hint that keeps several wallets from signing for the same
/// settlements. Only storing a transaction decides.
pub(in crate::engine) async fn reserve(
    conn: &mut PgConnection,
    chain_id: ChainId,
    n_max: usize,
    with_retries: bool,
) -> Result<Vec<Queued>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        update settlement set reserved_until = now() + make_interval(secs => $6)
        where settlement_id in (
            select settlement_id from settlement
            where chain_id = $1 and status = 'claimed' and n_alone < $2 and not_before <= now()
                and reserved_until <= now() and ($5 or (n_together_max is null and payer_kind = 'key'))
            order by not_before
            limit $3
            for update skip locked)
        returning settlement_id, n_together_max,
            n_transactions = 0 and created_at > now() - make_interval(secs => $4) as "is_fresh!"
        "#,
        chain_id.to_string(),
        N_ALONE_MAX,
        i64::try_from(n_max).unwrap_or(i64::MAX),
        FRESH.as_secs_f64(),
        with_retries,
        RESERVATION.as_secs_f64(),
    )
    .fetch_all(conn)
    .await
    .during("reserve settlements to send")?;
    let mut reserved = rows.into_iter().map(Queued::try_from).collect::<Result<Vec<_>, _>>()?;
    // The ids sort by the time of their claims.
    reserved.sort_unstable_by_key(|queued| queued.settlement_id);
    Ok(reserved)
}

struct Row {
    settlement_id: Uuid,
    n_together_max: Option<i32>,
    is_fresh: bool,
}

impl TryFrom<Row> for Queued {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let n_together_max = row.n_together_max.map(|n| db::number(i64::from(n))).transpose()?;
        Ok(Self {
            settlement_id: SettlementId::from_uuid(row.settlement_id),
            n_together_max: n_together_max.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            is_fresh: row.is_fresh,
        })
    }
}

/// Gives back what was reserved and not sent.
pub(in crate::engine) async fn unreserve(
    conn: &mut PgConnection,
    settlement_ids: &[SettlementId],
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update settlement set reserved_until = '-infinity'
        where settlement_id in (
            select settlement_id from settlement where settlement_id = any($1) for update skip locked)
        ",
        &uuids(settlement_ids),
    )
    .execute(conn)
    .await
    .during("give reserved settlements back")?;
    Ok(())
}

/// Looks away from a settlement for a while: `delay`, and longer the longer it has waited.
pub(in crate::engine) async fn postpone(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    delay: Duration,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update settlement set reserved_until = '-infinity', not_before = now()
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

/// Limits the company of settlements that a transaction left unpaid: from now on at most
/// `n_together_max` travel together.
pub(in crate::engine) async fn limit_company(
    conn: &mut PgConnection,
    settlement_ids: &[SettlementId],
    n_together_max: usize,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update settlement
        set n_together_max = least(n_together_max, $2), reserved_until = '-infinity'
        where settlement_id = any($1) and status in ('claimed', 'submitted')
        ",
        &uuids(settlement_ids),
        i32::try_from(n_together_max).unwrap_or(i32::MAX),
    )
    .execute(conn)
    .await
    .during("limit the company of settlements")?;
    Ok(())
}

/// How many settlements of a chain wait for a wallet, counted up to `n_max`.
pub(in crate::engine) async fn queue_length(
    conn: &mut PgConnection,
    chain_id: ChainId,
    n_max: usize,
) -> Result<usize, DbError> {
    let n = sqlx::query_scalar!(
        r#"
        select count(*) as "n!" from (
            select from settlement
            where chain_id = $1 and status = 'claimed' and n_alone < $2 limit $3) as waiting
        "#,
        chain_id.to_string(),
        N_ALONE_MAX,
        i64::try_from(n_max).unwrap_or(i64::MAX),
    )
    .fetch_one(conn)
    .await
    .during("count waiting settlements")?;
    Ok(usize::try_from(n).unwrap_or(0))
}

fn uuids(settlement_ids: &[SettlementId]) -> Vec<Uuid> {
    settlement_ids.iter().map(|id| id.as_uuid()).collect()
}
