//! The rates that merchants were given.

use sqlx::PgConnection;

use crate::{
    db::{DbError, During},
    domain::{MerchantId, OwnRates, Rate, RateClass},
};

use super::unreadable;

const READ: &str = "read a merchant's rates";

/// The rates of a merchant that are its own.
pub(in super::super) async fn rates(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
) -> Result<OwnRates, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select class || ' ' || per_second || '/' || burst as "rate!"
        from merchant_rate where merchant_id = $1
        "#,
        merchant_id.as_uuid(),
    )
    .fetch_all(conn)
    .await
    .during(READ)?;
    parse_rates(&rows, READ)
}

/// Replaces the rates of a merchant that are its own.
pub(in super::super) async fn set_rates(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    rates: &OwnRates,
) -> Result<(), DbError> {
    let classes: Vec<String> = rates.own().map(|(class, _)| class.as_str().to_owned()).collect();
    let per_second: Vec<i64> = rates.own().map(|(_, rate)| rate.per_second().into()).collect();
    let bursts: Vec<i64> = rates.own().map(|(_, rate)| rate.burst().into()).collect();
    sqlx::query!(
        "
        with own as (
            select * from unnest($2::text[], $3::bigint[], $4::bigint[])
                as own (class, per_second, burst)),
        former as (
            delete from merchant_rate
            where merchant_id = $1 and class not in (select class from own))
        insert into merchant_rate as rate (merchant_id, class, per_second, burst)
        select $1, class, per_second, burst from own
        on conflict on constraint merchant_rate_pkey do update
            set per_second = excluded.per_second, burst = excluded.burst
        ",
        merchant_id.as_uuid(),
        &classes,
        &per_second,
        &bursts,
    )
    .execute(conn)
    .await
    .during("set a merchant's rates")?;
    Ok(())
}

/// Rates as `verify 100/200`.
pub(super) fn parse_rates(rows: &[String], operation: &'static str) -> Result<OwnRates, DbError> {
    let mut rates = OwnRates::default();
    for row in rows {
        let (class, rate) = row.split_once(' ').unwrap_or((row, ""));
        let class = unreadable(RateClass::parse(class), operation)?;
        let rate: Rate = unreadable(rate.parse(), operation)?;
        rates = rates.with(class, Some(rate));
    }
    Ok(rates)
}
