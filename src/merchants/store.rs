//! The rows of merchants and keys.

use std::str::FromStr as _;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{DbError, During},
    domain::{ApiKeyId, Depth, KeyMode, MerchantId},
};

use super::{Asset, Assets, Caller, KeyHash, Principal};

/// A merchant of that name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a merchant of that name exists")]
pub struct MerchantNameTaken;

/// Creates a merchant.
pub async fn create_merchant(
    conn: &mut PgConnection,
    name: &str,
) -> Result<Result<MerchantId, MerchantNameTaken>, DbError> {
    let merchant_id = Uuid::now_v7();
    let created = sqlx::query!(
        "insert into merchant (merchant_id, name) values ($1, $2) on conflict (name) do nothing",
        merchant_id,
        name,
    )
    .execute(conn)
    .await
    .during("create a merchant")?;
    Ok(match created.rows_affected() {
        0 => Err(MerchantNameTaken),
        _ => Ok(MerchantId::from_uuid(merchant_id)),
    })
}

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

/// Sets how deep a merchant's payments must stand before success is told. `false` if there is no such
/// merchant.
pub async fn set_wait_for(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    wait_for: Depth,
) -> Result<bool, DbError> {
    let set = sqlx::query!(
        "update merchant set wait_for = $2 where merchant_id = $1",
        merchant_id.as_uuid(),
        wait_for.as_str(),
    )
    .execute(conn)
    .await
    .during("set a merchant's depth")?;
    Ok(set.rows_affected() == 1)
}

/// Sets what a merchant may be paid in.
pub async fn set_assets(
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

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOwner {
    /// A merchant's, for `/verify` and `/settle`.
    Merchant(MerchantId),
    /// An operator's.
    Operator,
}

/// A key about to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Whose.
    pub owner: KeyOwner,
    /// For which chains.
    pub mode: KeyMode,
    /// Its beginning.
    pub label: String,
    /// Its hash.
    pub hash: KeyHash,
}

/// Stores a key's hash.
pub async fn create_key(conn: &mut PgConnection, key: &NewKey) -> Result<ApiKeyId, DbError> {
    let api_key_id = Uuid::now_v7();
    let (merchant_id, role) = match key.owner {
        KeyOwner::Merchant(merchant_id) => (Some(merchant_id.as_uuid()), "merchant"),
        KeyOwner::Operator => (None, "operator"),
    };
    sqlx::query!(
        "
        insert into api_key (api_key_id, merchant_id, role, mode, label, key_hash)
        values ($1, $2, $3, $4, $5, $6)
        ",
        api_key_id,
        merchant_id,
        role,
        key.mode.as_str(),
        key.label,
        key.hash.as_bytes(),
    )
    .execute(conn)
    .await
    .during("create an API key")?;
    Ok(ApiKeyId::from_uuid(api_key_id))
}

/// Whoever holds the key with that hash.
pub(super) async fn find_principal(
    conn: &mut PgConnection,
    hash: KeyHash,
) -> Result<Option<Principal>, DbError> {
    let row = sqlx::query!(
        r#"
        select api_key_id, merchant_id, mode = 'live' as "is_live!", wait_for as "wait_for?",
            array(select chain_id || '/0x' || encode(asset, 'hex') from merchant_asset
                where merchant_asset.merchant_id = api_key.merchant_id) as "assets!"
        from api_key left join merchant using (merchant_id)
        where key_hash = $1 and revoked_at is null
        "#,
        hash.as_bytes(),
    )
    .fetch_optional(conn)
    .await
    .during("look up an API key")?;
    let Some(row) = row else { return Ok(None) };
    let wait_for = match row.wait_for.as_deref() {
        Some(depth) => Depth::parse(depth)
            .map_err(|error| sqlx::Error::Decode(error.into()))
            .during("look up an API key")?,
        None => Depth::default(),
    };
    let assets = row.assets.iter().map(|asset| Asset::from_str(asset));
    let assets = assets
        .collect::<Result<_, _>>()
        .and_then(Assets::of)
        .map_err(|error| sqlx::Error::Decode(error.into()))
        .during("look up an API key")?;
    Ok(Some(match row.merchant_id {
        Some(merchant_id) => Principal::Merchant(Caller {
            merchant_id: MerchantId::from_uuid(merchant_id),
            api_key_id: ApiKeyId::from_uuid(row.api_key_id),
            mode: if row.is_live { KeyMode::Live } else { KeyMode::Test },
            wait_for,
            assets,
        }),
        None => Principal::Operator,
    }))
}
