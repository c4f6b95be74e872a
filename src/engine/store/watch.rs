//! Which settlements a block can concern.

use alloy::primitives::Address;
use sqlx::PgConnection;

use crate::{
    chain::TokenEvent,
    db::{self, DbError, During},
    domain::{ChainId, SettlementId, UnixTime},
};

/// What on a chain is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Unfinished {
    /// Something is claimed, submitted or unmined: the next block may concern it.
    pub(in crate::engine) is_busy: bool,
    /// Something is included or mined but not finalized: a reorganization may concern it.
    pub(in crate::engine) is_unsettled: bool,
    /// Something failed whose authorization has not expired: somebody may still submit it.
    pub(in crate::engine) is_payable: bool,
}

impl Unfinished {
    /// Whether no block can concern us.
    pub(in crate::engine) const fn is_nothing(self) -> bool {
        !self.is_busy && !self.is_unsettled && !self.is_payable
    }
}

/// Whether blocks can still concern us.
pub(in crate::engine) async fn unfinished(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block_time: UnixTime,
) -> Result<Unfinished, DbError> {
    sqlx::query_as!(
        Unfinished,
        r#"
        select
            exists (select from settlement
                    where chain_id = $1 and status in ('claimed', 'submitted'))
                or exists (select from transaction join wallet using (wallet_id)
                    where transaction.chain_id = $1 and transaction.status = 'open') as "is_busy!",
            exists (select from settlement where chain_id = $1 and status in ('included', 'safe'))
                or exists (select from transaction where chain_id = $1 and status = 'mined')
                as "is_unsettled!",
            exists (select from settlement
                where chain_id = $1 and status = 'failed' and valid_before > $2::text::numeric)
                as "is_payable!"
        "#,
        chain_id.to_string(),
        block_time.to_string(),
    )
    .fetch_one(conn)
    .await
    .during("look for unfinished work")
}

/// The tokens whose events can concern a settlement in a block of that time.
pub(in crate::engine) async fn watched_assets(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block_time: UnixTime,
) -> Result<Vec<Address>, DbError> {
    let assets = sqlx::query_scalar!(
        r#"
        select asset as "asset!" from settlement
            where chain_id = $1 and status in ('claimed', 'submitted')
        union
        select asset from settlement
            where chain_id = $1 and status = 'failed' and valid_before > $2::text::numeric
        "#,
        chain_id.to_string(),
        block_time.to_string(),
    )
    .fetch_all(conn)
    .await
    .during("read watched assets")?;
    assets.iter().map(|asset| db::address(asset)).collect()
}

/// The settlements whose authorizations `events` used up.
pub(in crate::engine) async fn settlements_of(
    conn: &mut PgConnection,
    chain_id: ChainId,
    events: &[TokenEvent],
) -> Result<Vec<SettlementId>, DbError> {
    let column = |read: fn(&TokenEvent) -> &[u8]| -> Vec<Vec<u8>> {
        events.iter().map(|event| read(event).to_vec()).collect()
    };
    let found = sqlx::query_scalar!(
        "
        select settlement_id
        from unnest($2::bytea[], $3::bytea[], $4::bytea[]) as used (asset, payer, authorization_nonce)
            join settlement using (asset, payer, authorization_nonce)
        where chain_id = $1
        ",
        chain_id.to_string(),
        &column(|event| event.asset.as_slice()),
        &column(|event| event.payer.as_slice()),
        &column(|event| event.nonce.as_bytes().as_slice()),
    )
    .fetch_all(conn)
    .await
    .during("find settlements by events")?;
    Ok(found.into_iter().map(SettlementId::from_uuid).collect())
}

/// How long after their expiry settlements are looked into: three blocks of Base. A reorganization can
/// bring earlier timestamps back, and what a shallow one could still pay has not failed.
const EXPIRY_DEPTH_SECONDS: i32 = 6;
/// How many expired settlements are looked into with one block; the next block takes the others.
const N_EXPIRED_MAX: i64 = 64;

/// The unfinished settlements that no block from `block_time` on can pay any more, the oldest first.
pub(in crate::engine) async fn expired(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block_time: UnixTime,
) -> Result<Vec<SettlementId>, DbError> {
    let found = sqlx::query_scalar!(
        "
        select settlement_id from settlement
        where chain_id = $1 and status in ('claimed', 'submitted')
            and valid_before + $3::integer <= $2::text::numeric
        order by valid_before
        limit $4
        ",
        chain_id.to_string(),
        block_time.to_string(),
        EXPIRY_DEPTH_SECONDS,
        N_EXPIRED_MAX,
    )
    .fetch_all(conn)
    .await
    .during("find expired settlements")?;
    Ok(found.into_iter().map(SettlementId::from_uuid).collect())
}
