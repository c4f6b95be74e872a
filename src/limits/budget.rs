//! What was spent of budgets, counted in the claim's database transaction.
//!
//! A counter only ever grows: it holds everything that was claimed in its window. What a settlement was
//! counted in is a hold of its own, which the database releases when the settlement fails, so what is
//! used is the counter less its released holds. Releasing touches no row that two settlements share,
//! and claims take counters in one order: neither can deadlock.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::{Amount, AmountError, SettlementId},
};

/// The lock that claims share, and that whoever changes a rule has alone.
const RULES_LOCK: i64 = 0x7175_6974_7275_6c65;

/// How long a budget lasts. Windows are those of UTC, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// From full hour to full hour.
    Hour,
    /// From midnight to midnight.
    Day,
    /// It never begins anew.
    Total,
}

impl Period {
    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Total => "total",
        }
    }
}

/// A budget that a payment is counted in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Budget {
    /// The cap or the policy that sets it.
    pub rule_id: Uuid,
    /// Whose it is, where the rule gives each of many one of their own; otherwise empty.
    pub subject: String,
    /// When it begins anew.
    pub period: Period,
}

/// What is used of a budget. Sums stop at the largest amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// How much, in base units.
    pub amount: Amount,
    /// How many payments.
    pub n_payments: u64,
    /// Nothing was counted in this window before.
    pub is_new: bool,
}

/// Keeps the rules as they are until the database transaction ends. Before they are read, and before any
/// other lock.
pub async fn hold_rules(conn: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query_scalar!("select pg_advisory_xact_lock_shared($1)", RULES_LOCK)
        .execute(conn)
        .await
        .during("hold the rules")?;
    Ok(())
}

/// Waits for the claims under way, and keeps others away until the database transaction ends: no claim
/// is made by former rules once the new ones stand, and what was claimed before them can be counted.
pub async fn change_rules(conn: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query_scalar!("select pg_advisory_xact_lock($1)", RULES_LOCK)
        .execute(conn)
        .await
        .during("change the rules")?;
    Ok(())
}

/// Counts a claimed settlement in its budgets, and reports what is used of each with it, in the order of
/// `budgets`. Whoever finds one exceeded rolls the database transaction back.
pub async fn reserve(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    amount: Amount,
    budgets: &[Budget],
) -> Result<Vec<Used>, DbError> {
    let (rule_ids, subjects, periods) = columns(budgets);
    let rows = sqlx::query_as!(
        Row,
        r#"
        with asked as (
            select rule_id, subject, position,
                case period when 'hour' then date_trunc('hour', now(), 'UTC')
                    when 'day' then date_trunc('day', now(), 'UTC')
                    else '-infinity' end as window_start
            from unnest($2::uuid[], $3::text[], $4::text[])
                with ordinality as asked (rule_id, subject, period, position)),
        counted as (
            insert into budget_counter as counter
                (rule_id, subject, window_start, n_payments, amount)
            select rule_id, subject, window_start, 1, $5::text::numeric from asked
            order by rule_id, subject, window_start
            on conflict on constraint budget_counter_key do update
                set n_payments = counter.n_payments + 1, amount = counter.amount + excluded.amount
            returning counter_id, rule_id, subject, window_start, n_payments, amount,
                xmax = 0 as is_new),
        held as (
            insert into budget_hold (settlement_id, counter_id, amount)
            select $1, counter_id, $5::text::numeric from counted)
        select (counted.amount - released.amount)::text as "amount!",
            counted.n_payments - released.n_payments as "n_payments!", is_new as "is_new!"
        from asked
            join counted using (rule_id, subject, window_start)
            cross join lateral (
                select coalesce(sum(amount), 0) as amount, count(*) as n_payments
                from budget_hold
                where budget_hold.counter_id = counted.counter_id and is_released) as released
        order by position
        "#,
        settlement_id.as_uuid(),
        &rule_ids,
        &subjects,
        &periods,
        amount.to_string(),
    )
    .fetch_all(conn)
    .await
    .during("reserve budgets")?;
    rows.into_iter().map(Used::try_from).collect()
}

/// What is used of budgets, in their order. Changes nothing.
pub async fn used(conn: &mut PgConnection, budgets: &[Budget]) -> Result<Vec<Used>, DbError> {
    let (rule_ids, subjects, periods) = columns(budgets);
    let rows = sqlx::query_as!(
        Row,
        r#"
        with asked as (
            select rule_id, subject, position,
                case period when 'hour' then date_trunc('hour', now(), 'UTC')
                    when 'day' then date_trunc('day', now(), 'UTC')
                    else '-infinity' end as window_start
            from unnest($1::uuid[], $2::text[], $3::text[])
                with ordinality as asked (rule_id, subject, period, position))
        select (coalesce(counter.amount, 0) - released.amount)::text as "amount!",
            coalesce(counter.n_payments, 0) - released.n_payments as "n_payments!",
            counter.counter_id is null as "is_new!"
        from asked
            left join budget_counter counter using (rule_id, subject, window_start)
            cross join lateral (
                select coalesce(sum(amount), 0) as amount, count(*) as n_payments
                from budget_hold
                where budget_hold.counter_id = counter.counter_id and is_released) as released
        order by position
        "#,
        &rule_ids,
        &subjects,
        &periods,
    )
    .fetch_all(conn)
    .await
    .during("read what is used of budgets")?;
    rows.into_iter().map(Used::try_from).collect()
}

fn columns(budgets: &[Budget]) -> (Vec<Uuid>, Vec<String>, Vec<String>) {
    (
        budgets.iter().map(|budget| budget.rule_id).collect(),
        budgets.iter().map(|budget| budget.subject.clone()).collect(),
        budgets.iter().map(|budget| budget.period.as_str().to_owned()).collect(),
    )
}

struct Row {
    amount: String,
    n_payments: i64,
    is_new: bool,
}

impl TryFrom<Row> for Used {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let amount = match Amount::parse(&row.amount) {
            Err(AmountError::TooLarge) => Amount::MAX,
            _ => db::amount(&row.amount)?,
        };
        Ok(Self { amount, n_payments: db::number(row.n_payments)?, is_new: row.is_new })
    }
}
