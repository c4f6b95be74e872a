//! The rows of merchants.

use std::str::FromStr as _;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{DbError, During},
    domain::{Depth, MerchantId},
};

use super::{
    super::{Asset, Assets, Merchant, MerchantStatus},
    unreadable,
};

/// The merchant with that name or id.
pub async fn find_merchant(
    conn: &mut PgConnection,
    name_or_id: &str,
) -> Result<Option<MerchantId>, DbError> {
    let found = sqlx::query_scalar!(
        "select merchant_id from merchant where name = $1 or merchant_id::text = lower($1)",
        name_or_id,
    )
    .fetch_optional(conn)
    .await
    .during("find a merchant")?;
    Ok(found.map(MerchantId::from_uuid))
}

/// Creates a merchant; `None` if the name is taken.
pub(in super::super) async fn insert_merchant(
    conn: &mut PgConnection,
    name: &str,
    wait_for: Depth,
) -> Result<Option<MerchantId>, DbError> {
    let merchant_id = Uuid::now_v7();
    let created = sqlx::query!(
        "
        insert into merchant (merchant_id, name, wait_for) values ($1, $2, $3)
        on conflict (name) do nothing
        ",
        merchant_id,
        name,
        wait_for.as_str(),
    )
    .execute(conn)
    .await
    .during("create a merchant")?;
    Ok((created.rows_affected() == 1).then(|| MerchantId::from_uuid(merchant_id)))
}

/// Lets nobody else change the merchant until the database transaction ends.
pub(in super::super) async fn hold_merchant(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
) -> Result<(), DbError> {
    sqlx::query!(
        "select from merchant where merchant_id = $1 for no key update",
        merchant_id.as_uuid(),
    )
    .execute(conn)
    .await
    .during("hold a merchant")?;
    Ok(())
}

/// The merchant with that id.
pub(in super::super) async fn merchant(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
) -> Result<Option<Merchant>, DbError> {
    let row = sqlx::query_as!(
        MerchantRow,
        r#"
        select merchant_id, name, status, status_reason, wait_for,
            rfc3339(created_at) as "created_at!", rfc3339(updated_at) as "updated_at!",
            array(select chain_id || '/0x' || encode(asset, 'hex') from merchant_asset
                where merchant_asset.merchant_id = merchant.merchant_id) as "assets!"
        from merchant where merchant_id = $1
        "#,
        merchant_id.as_uuid(),
    )
    .fetch_optional(conn)
    .await
    .during("read a merchant")?;
    row.map(Merchant::try_from).transpose()
}

/// Merchants in the order of their creation, those after `after`.
pub(in super::super) async fn merchants_after(
    conn: &mut PgConnection,
    after: Option<MerchantId>,
    limit: i64,
) -> Result<Vec<Merchant>, DbError> {
    let rows = sqlx::query_as!(
        MerchantRow,
        r#"
        select merchant_id, name, status, status_reason, wait_for,
            rfc3339(created_at) as "created_at!", rfc3339(updated_at) as "updated_at!",
            array(select chain_id || '/0x' || encode(asset, 'hex') from merchant_asset
                where merchant_asset.merchant_id = merchant.merchant_id) as "assets!"
        from merchant where merchant_id > $1 order by merchant_id limit $2
        "#,
        after.map_or(Uuid::nil(), MerchantId::as_uuid),
        limit,
    )
    .fetch_all(conn)
    .await
    .during("read merchants")?;
    rows.into_iter().map(Merchant::try_from).collect()
}

/// Gives a merchant another name; `false` if it is taken.
pub(in super::super) async fn rename_merchant(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    name: &str,
) -> Result<bool, DbError> {
    let renamed = sqlx::query!(
        "update merchant set name = $2, updated_at = now() where merchant_id = $1",
        merchant_id.as_uuid(),
        name,
    )
    .execute(conn)
    .await;
    match renamed {
        Err(sqlx::Error::Database(error)) if error.constraint() == Some("merchant_name_key") => {
            Ok(false)
        }
        other => other.during("rename a merchant").map(|_| true),
    }
}

/// Sets how deep a merchant's payments must stand before success is told.
pub(in super::super) async fn set_wait_for(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    wait_for: Depth,
) -> Result<(), DbError> {
    sqlx::query!(
        "update merchant set wait_for = $2, updated_at = now() where merchant_id = $1",
        merchant_id.as_uuid(),
        wait_for.as_str(),
    )
    .execute(conn)
    .await
    .during("set a merchant's depth")?;
    Ok(())
}

/// Suspends, resumes or closes a merchant.
pub(in super::super) async fn set_status(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    status: MerchantStatus,
    reason: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update merchant set status = $2, status_reason = $3, updated_at = now()
        where merchant_id = $1
        ",
        merchant_id.as_uuid(),
        status.as_str(),
        reason,
    )
    .execute(conn)
    .await
    .during("set a merchant's status")?;
    Ok(())
}

/// Sets what a merchant may be paid in.
pub(in super::super) async fn set_assets(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    assets: &Assets,
) -> Result<(), DbError> {
    let (chain_ids, addresses): (Vec<String>, Vec<Vec<u8>>) = assets
        .listed()
        .iter()
        .map(|asset| (asset.chain_id.to_string(), asset.address.to_vec()))
        .unzip();
    sqlx::query!(
        "
        with listed as (select * from unnest($2::text[], $3::bytea[]) as listed (chain_id, asset)),
        changed as (update merchant set updated_at = now() where merchant_id = $1),
        unlisted as (
            delete from merchant_asset where merchant_id = $1
                and (chain_id, asset) not in (select chain_id, asset from listed)
        )
        insert into merchant_asset (merchant_id, chain_id, asset)
        select $1, chain_id, asset from listed
        on conflict do nothing
        ",
        merchant_id.as_uuid(),
        &chain_ids,
        &addresses,
    )
    .execute(conn)
    .await
    .during("set a merchant's assets")?;
    Ok(())
}

struct MerchantRow {
    merchant_id: Uuid,
    name: String,
    status: String,
    status_reason: Option<String>,
    wait_for: String,
    created_at: String,
    updated_at: String,
    assets: Vec<String>,
}

impl TryFrom<MerchantRow> for Merchant {
    type Error = DbError;

    fn try_from(row: MerchantRow) -> Result<Self, DbError> {
        const OPERATION: &str = "read a merchant";
        let assets = row.assets.iter().map(|asset| Asset::from_str(asset));
        let assets = assets.collect::<Result<_, _>>().and_then(Assets::of);
        Ok(Self {
            merchant_id: MerchantId::from_uuid(row.merchant_id),
            name: row.name,
            status: MerchantStatus::parse(&row.status).unwrap_or(MerchantStatus::Closed),
            status_reason: row.status_reason,
            wait_for: unreadable(Depth::parse(&row.wait_for), OPERATION)?,
            assets: unreadable(assets, OPERATION)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
