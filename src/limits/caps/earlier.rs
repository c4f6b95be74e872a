//! What was claimed before a cap was made, within the window that it began in.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{DbError, During},
    limits::hold_rules,
};

use super::{
    cap::{CapId, Subject},
    standing::{Standing, Visit, standing},
};

/// The lock that whoever fails a settlement shares, in the trigger `budget_release`.
const RELEASES_LOCK: i64 = 0x7175_6974_5f72_656c;

/// Begins the counters about a visit that lack what was claimed before their caps, with that in them. Needs
/// a database transaction of its own, which holds nothing.
///
/// No claim by former rules is under way, because whoever made the cap waited for them; claims by the new
/// ones wait for the counter, or have begun it before. No settlement fails meanwhile.
pub async fn count_earlier(conn: &mut PgConnection, visit: &Visit) -> Result<(), DbError> {
    hold_rules(conn).await?;
    let standing = standing(conn, visit).await?;
    sqlx::query_scalar!("select pg_advisory_xact_lock($1)", RELEASES_LOCK)
        .execute(&mut *conn)
        .await
        .during("hold back failures")?;
    for cap_id in standing.uncounted() {
        count(conn, visit, &standing, cap_id).await?;
    }
    Ok(())
}

async fn count(
    conn: &mut PgConnection,
    visit: &Visit,
    standing: &Standing,
    cap_id: CapId,
) -> Result<(), DbError> {
    let Some(counted) = standing.caps.iter().find(|counted| counted.cap.cap_id == cap_id) else {
        return Ok(());
    };
    let begun = sqlx::query_scalar!(
        "
        insert into budget_counter (rule_id, subject, window_start, n_payments, amount)
        select cap_id, $2, date_trunc(period, now(), 'UTC'), 0, 0 from cap where cap_id = $1
        on conflict on constraint budget_counter_key do nothing
        returning counter_id
        ",
        cap_id.as_uuid(),
        counted.counter_subject,
    )
    .fetch_optional(&mut *conn)
    .await
    .during("begin a counter")?;
    // Somebody else has begun it, and counted.
    let Some(counter_id) = begun else { return Ok(()) };
    let (place, subject) = (visit.place, counted.cap.terms.subject());
    let merchant: Option<Uuid> = match subject {
        Subject::Payer(_) => None,
        Subject::Merchant(_) | Subject::Key(..) | Subject::PayerAtMerchant(..) => {
            Some(place.merchant_id.as_uuid())
        }
    };
    let key = matches!(subject, Subject::Key(..)).then(|| place.api_key_id.as_uuid());
    let payer = match subject {
        Subject::Merchant(_) | Subject::Key(..) => None,
        Subject::Payer(_) | Subject::PayerAtMerchant(..) => visit.payer,
    };
    let payer = payer.map(|payer| payer.to_vec());
    sqlx::query!(
        "
        with earlier as (
            select settlement_id, settlement.amount, status
            from settlement
                join cap on cap_id = $2
            where ($3::uuid is null or settlement.merchant_id = $3)
                and ($4::uuid is null or settlement.api_key_id = $4)
                and ($5::bytea is null or settlement.payer = $5)
                and settlement.created_at >= date_trunc($6::text, now(), 'UTC')
                and settlement.created_at < date_trunc($6::text, now(), 'UTC')
                    + case $6::text when 'hour' then interval '1 hour' else interval '24 hours' end
                and (cap.chain_id is null or settlement.chain_id = cap.chain_id)
                and (cap.asset is null or settlement.asset = cap.asset)),
        held as (
            insert into budget_hold (settlement_id, counter_id, amount, is_released)
            select settlement_id, $1, amount, status = 'failed' from earlier
            -- What is final cannot fail any more.
            where status <> 'finalized')
        update budget_counter
        set n_payments = budget_counter.n_payments + earlier.n_payments,
            amount = budget_counter.amount + earlier.amount
        from (select count(*) as n_payments, coalesce(sum(amount), 0) as amount from earlier)
            as earlier
        where counter_id = $1
        ",
        counter_id,
        cap_id.as_uuid(),
        merchant,
        key,
        payer.as_deref(),
        counted.cap.terms.period().as_str(),
    )
    .execute(conn)
    .await
    .during("count what was claimed before")?;
    tracing::info!(cap.id = %cap_id, "counted what was claimed before a cap was made");
    Ok(())
}
