//! Whether Redis may be believed when it says that nobody promised anything for a payer.
//!
//! The rule is in `facilitator/promised.rs`; these are its steps in the database. All of them are needed
//! only where Redis is used, and all of them are right where it is used by some replicas only.

use alloy::primitives::Address;
use futures_util::{Stream, StreamExt as _};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::{ChainId, UnixTime},
};

/// How far a generation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterState {
    /// Claims mark their payers, and those of before are being marked.
    Building,
    /// Every payer who promised something is marked.
    Trusted,
    /// One may not be marked. Only another generation is trusted again.
    Stale,
}

/// The generation of marks that a chain has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Its name.
    pub generation: Uuid,
    /// The Redis server that holds it.
    pub server: String,
    /// How far it has come.
    pub state: FilterState,
    /// Who verifies by a block below this one cannot use it.
    pub from_block: u64,
}

/// What the books say of a chain's marks, all of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterSeen {
    /// The database's clock, which lives of marks are counted by.
    pub now: UnixTime,
    /// The newest block that the books know.
    pub applied_head: Option<u64>,
    /// The generation, if there ever was one.
    pub filter: Option<Filter>,
}

/// Reads what marks a chain has.
pub async fn filter(conn: &mut PgConnection, chain_id: ChainId) -> Result<FilterSeen, DbError> {
    let row = sqlx::query!(
        r#"
        select extract(epoch from now())::bigint as "now!", number as "applied_head?",
            generation as "generation?", server as "server?", state as "state?",
            from_block as "from_block?"
        from (select $1::text as chain_id) as asked
            left join chain_head using (chain_id)
            left join promise_filter using (chain_id)
        "#,
        chain_id.to_string(),
    )
    .fetch_one(conn)
    .await
    .during("read what marks there are")?;
    let filter = match (row.generation, row.server, row.state.as_deref(), row.from_block) {
        (Some(generation), Some(server), Some(state), Some(from_block)) => {
            let state = match state {
                "building" => FilterState::Building,
                "trusted" => FilterState::Trusted,
                // Whatever else it may be, it is not to be trusted.
                _ => FilterState::Stale,
            };
            Some(Filter { generation, server, state, from_block: db::number(from_block)? })
        }
        _ => None,
    };
    Ok(FilterSeen {
        now: UnixTime::from_seconds(db::number(row.now)?),
        applied_head: row.applied_head.map(db::number).transpose()?,
        filter,
    })
}

/// Says that a payer may not be marked, from the commit on.
pub async fn distrust_filter(conn: &mut PgConnection, chain_id: ChainId) -> Result<(), DbError> {
    sqlx::query!(
        "update promise_filter set state = 'stale' where chain_id = $1 and state <> 'stale'",
        chain_id.to_string(),
    )
    .execute(conn)
    .await
    .during("distrust marks")?;
    Ok(())
}

/// How long after a generation began another may.
const GENERATION_SECONDS_MIN: i32 = 5;
/// How long after a generation began it is given up, if it is not trusted by then.
const BUILDING_SECONDS_MAX: i32 = 120;

/// Begins a generation in the place of `former`. `false` if somebody else did, or did a moment ago.
pub async fn begin_filter(
    conn: &mut PgConnection,
    chain_id: ChainId,
    generation: Uuid,
    server: &str,
    former: Option<Uuid>,
) -> Result<bool, DbError> {
    let began = sqlx::query!(
        "
        insert into promise_filter (chain_id, generation, server) values ($1, $2, $3)
        on conflict (chain_id) do update
        set generation = excluded.generation, server = excluded.server, state = excluded.state,
            from_block = excluded.from_block, began_at = excluded.began_at
        where promise_filter.generation = $4
            and promise_filter.began_at < now() - make_interval(
                secs => case promise_filter.state when 'building' then $5::integer
                    else $6::integer end)
        ",
        chain_id.to_string(),
        generation,
        server,
        former,
        BUILDING_SECONDS_MAX,
        GENERATION_SECONDS_MIN,
    )
    .execute(conn)
    .await
    .during("begin a generation of marks")?;
    Ok(began.rows_affected() == 1)
}

/// Trusts a generation. `false` if somebody distrusted it, or began another.
pub async fn trust_filter(
    conn: &mut PgConnection,
    chain_id: ChainId,
    generation: Uuid,
) -> Result<bool, DbError> {
    let trusted = sqlx::query!(
        "
        update promise_filter
        set state = 'trusted',
            from_block = coalesce((select number from chain_head where chain_id = $1), 0)
        where chain_id = $1 and generation = $2 and state = 'building'
        ",
        chain_id.to_string(),
        generation,
    )
    .execute(conn)
    .await
    .during("trust marks")?;
    Ok(trusted.rows_affected() == 1)
}

/// A moment in the order of database transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment(String);

/// Now: later than the first write of everything that has written so far.
pub async fn moment(conn: &mut PgConnection) -> Result<Moment, DbError> {
    sqlx::query_scalar!(r#"select pg_snapshot_xmax(pg_current_snapshot())::text as "moment!""#)
        .fetch_one(conn)
        .await
        .during("read how far the database is")
        .map(Moment)
}

/// Whether every database transaction that had written something by then has ended.
pub async fn has_settled(conn: &mut PgConnection, moment: &Moment) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"select pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8 as "has_settled!""#,
        moment.0,
    )
    .fetch_one(conn)
    .await
    .during("wait for database transactions to end")
}

/// A payer of an asset whose promises can count until some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveAccount {
    /// The token.
    pub asset: Address,
    /// Who signed.
    pub payer: Address,
    /// When the last of the authorizations expires; the last second there is for those that never do.
    pub valid_before: UnixTime,
}

/// The payers of a chain whose claims are not final and expire after `expiry_min`, one after another: as
/// many as there are, and never all in memory.
pub fn live_accounts(
    conn: &mut PgConnection,
    chain_id: ChainId,
    expiry_min: UnixTime,
) -> impl Stream<Item = Result<LiveAccount, DbError>> {
    // Each part by its own index, none of which knows the final ones.
    let rows = sqlx::query!(
        r#"
        select asset as "asset!", payer as "payer!",
            least(max(valid_before), 9223372036854775807)::bigint as "valid_before!"
        from (
            select asset, payer, valid_before from settlement
                where chain_id = $1 and status in ('claimed', 'submitted')
            union all
            select asset, payer, valid_before from settlement
                where chain_id = $1 and status in ('included', 'safe')
            union all
            select asset, payer, valid_before from settlement
                where chain_id = $1 and status = 'failed' and valid_before > $2::text::numeric)
            as live
        where valid_before > $2::text::numeric
        group by asset, payer
        "#,
        chain_id.to_string(),
        expiry_min.to_string(),
    )
    .fetch(conn);
    rows.map(|row| {
        let row = row.during("read who promised something")?;
        Ok(LiveAccount {
            asset: db::address(&row.asset)?,
            payer: db::address(&row.payer)?,
            valid_before: UnixTime::from_seconds(db::number(row.valid_before)?),
        })
    })
}

/// Lets the statements of this database transaction take their time.
pub async fn take_time(conn: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query!("set local statement_timeout = '60s'")
        .execute(conn)
        .await
        .during("lengthen the statement timeout")?;
    Ok(())
}
