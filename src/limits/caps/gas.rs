//! Gas budgets, as a claim reads them while it holds them.

use alloy::primitives::U256;
use sqlx::PgConnection;

use crate::db::{self, DbError, During};

use super::standing::Visit;

/// Holds gas budgets until the database transaction ends: claims under the same ones are made one after
/// the other. Only claims take these locks, in one order, after their payer's and before any counter.
pub async fn hold_gas(conn: &mut PgConnection, subjects: &[String]) -> Result<(), DbError> {
    sqlx::query!(
        "
        select pg_advisory_xact_lock(hashtextextended('gas/' || subject, 0))
        from (select distinct subject from unnest($1::text[]) as asked (subject) order by subject)
            as asked
        ",
        subjects,
    )
    .fetch_all(conn)
    .await
    .during("hold gas budgets")?;
    Ok(())
}

/// What gas budgets have used, in the order of `subjects`: what was posted today, and what is unmined. A
/// claim reads it while it holds them, its own part included.
pub async fn gas_used(
    conn: &mut PgConnection,
    visit: &Visit,
    subjects: &[String],
) -> Result<Vec<U256>, DbError> {
    let payer = visit.payer.map(|payer| payer.to_vec());
    let used = sqlx::query_scalar!(
        r#"
        select (coalesce((select wei from gas_spent where chain_id = $1
                    and gas_spent.subject = asked.subject
                    and day = (now() at time zone 'UTC')::date), 0)
            + coalesce(case when subject like 'merchant:%'
                then (select sum(gas_reserved_wei) from settlement
                    where chain_id = $1 and merchant_id = $3
                        and status in ('claimed', 'submitted') and gas_reserved_wei > 0)
                else (select sum(gas_reserved_wei) from settlement
                    where chain_id = $1 and payer = $4
                        and status in ('claimed', 'submitted') and gas_reserved_wei > 0)
            end, 0))::text as "used!"
        from unnest($2::text[]) with ordinality as asked (subject, position)
        order by position
        "#,
        visit.place.chain_id.to_string(),
        subjects,
        visit.place.merchant_id.as_uuid(),
        payer.as_deref(),
    )
    .fetch_all(conn)
    .await
    .during("read gas budgets")?;
    Ok(used.iter().map(|used| db::u256(used).unwrap_or(U256::MAX)).collect())
}
