//! The rows of keys.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::{ApiKeyId, KeyMode, MerchantId, UnixTime},
};

use super::{
    super::{KeyHash, KeyOwner, KeyRecord, NewKey, Scopes},
    unreadable,
};

/// Stores a key's hash.
pub(in super::super) async fn insert_key(
    conn: &mut PgConnection,
    key: &NewKey,
    label: &str,
    hash: KeyHash,
) -> Result<ApiKeyId, DbError> {
    let api_key_id = Uuid::now_v7();
    let scopes: Vec<String> = key.scopes.words().into_iter().map(str::to_owned).collect();
    sqlx::query!(
        "
        insert into api_key
            (api_key_id, merchant_id, role, mode, scopes, name, label, key_hash, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, now() + $9::bigint * interval '1 second')
        ",
        api_key_id,
        key.owner.merchant_id().map(MerchantId::as_uuid),
        key.owner.as_str(),
        key.mode.as_str(),
        &scopes,
        key.name,
        label,
        hash.as_bytes(),
        key.lifetime_seconds,
    )
    .execute(conn)
    .await
    .during("create an API key")?;
    Ok(ApiKeyId::from_uuid(api_key_id))
}

/// How many keys of a merchant work.
pub(in super::super) async fn count_valid_keys(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
) -> Result<u64, DbError> {
    let n = sqlx::query_scalar!(
        r#"
        select count(*) as "n!" from api_key
        where merchant_id = $1 and revoked_at is null and (expires_at is null or expires_at > now())
        "#,
        merchant_id.as_uuid(),
    )
    .fetch_one(conn)
    .await
    .during("count API keys")?;
    db::number(n)
}

/// Lets nobody else change the key until the database transaction ends.
pub(in super::super) async fn hold_key(
    conn: &mut PgConnection,
    api_key_id: ApiKeyId,
) -> Result<(), DbError> {
    sqlx::query!(
        "select from api_key where api_key_id = $1 for no key update",
        api_key_id.as_uuid(),
    )
    .execute(conn)
    .await
    .during("hold an API key")?;
    Ok(())
}

/// What is known of a key.
pub(in super::super) async fn find_key(
    conn: &mut PgConnection,
    api_key_id: ApiKeyId,
) -> Result<Option<KeyRecord>, DbError> {
    let row = sqlx::query_as!(
        KeyRow,
        r#"
        select api_key_id, merchant_id, mode = 'live' as "is_live!", scopes, name, label,
            rfc3339(created_at) as "created_at!", rfc3339(expires_at) as expires_at,
            rfc3339(last_used_at) as last_used_at, rfc3339(revoked_at) as revoked_at, replaced_by,
            revoked_at is null and (expires_at is null or expires_at > now()) as "is_valid!",
            extract(epoch from expires_at - created_at)::bigint as lifetime_seconds
        from api_key where api_key_id = $1
        "#,
        api_key_id.as_uuid(),
    )
    .fetch_optional(conn)
    .await
    .during("read an API key")?;
    row.map(KeyRecord::try_from).transpose()
}

/// The keys of a merchant, or those of operators, in the order of their creation, those after `after`.
pub(in super::super) async fn keys_after(
    conn: &mut PgConnection,
    owner: KeyOwner,
    after: Option<ApiKeyId>,
    limit: i64,
) -> Result<Vec<KeyRecord>, DbError> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"
        select api_key_id, merchant_id, mode = 'live' as "is_live!", scopes, name, label,
            rfc3339(created_at) as "created_at!", rfc3339(expires_at) as expires_at,
            rfc3339(last_used_at) as last_used_at, rfc3339(revoked_at) as revoked_at, replaced_by,
            revoked_at is null and (expires_at is null or expires_at > now()) as "is_valid!",
            extract(epoch from expires_at - created_at)::bigint as lifetime_seconds
        from api_key
        where (merchant_id = $1 or $1 is null and merchant_id is null) and api_key_id > $2
        order by api_key_id limit $3
        "#,
        owner.merchant_id().map(MerchantId::as_uuid),
        after.map_or(Uuid::nil(), ApiKeyId::as_uuid),
        limit,
    )
    .fetch_all(conn)
    .await
    .during("read API keys")?;
    rows.into_iter().map(KeyRecord::try_from).collect()
}

/// Lets a key end when its overlap with the one that takes its place does, if it does not end before.
pub(in super::super) async fn end_key(
    conn: &mut PgConnection,
    api_key_id: ApiKeyId,
    replaced_by: ApiKeyId,
    overlap_seconds: i64,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update api_key set replaced_by = $2,
            expires_at = least(expires_at, now() + $3::bigint * interval '1 second')
        where api_key_id = $1
        ",
        api_key_id.as_uuid(),
        replaced_by.as_uuid(),
        overlap_seconds,
    )
    .execute(conn)
    .await
    .during("replace an API key")?;
    Ok(())
}

/// Makes a key void.
pub(in super::super) async fn revoke_key(
    conn: &mut PgConnection,
    api_key_id: ApiKeyId,
) -> Result<(), DbError> {
    sqlx::query!(
        "update api_key set revoked_at = now() where api_key_id = $1 and revoked_at is null",
        api_key_id.as_uuid(),
    )
    .execute(conn)
    .await
    .during("revoke an API key")?;
    Ok(())
}

/// Writes when keys were last used. Held in the order of their ids, because other processes do the same.
pub(in super::super) async fn write_uses(
    conn: &mut PgConnection,
    uses: &[(Uuid, UnixTime)],
) -> Result<(), DbError> {
    let (ids, times): (Vec<Uuid>, Vec<i64>) =
        uses.iter().map(|(id, at)| (*id, i64::try_from(at.seconds()).unwrap_or(i64::MAX))).unzip();
    sqlx::query!(
        "
        with used as (
            select api_key_id, to_timestamp(at) as used_at
            from unnest($1::uuid[], $2::bigint[]) as used (api_key_id, at)),
        held as (
            select api_key_id from api_key where api_key_id = any($1)
            order by api_key_id for no key update)
        update api_key set last_used_at = used_at
        from used join held using (api_key_id)
        where api_key.api_key_id = used.api_key_id
            and (last_used_at is null or last_used_at < used_at)
        ",
        &ids,
        &times,
    )
    .execute(conn)
    .await
    .during("write when keys were last used")?;
    Ok(())
}

struct KeyRow {
    api_key_id: Uuid,
    merchant_id: Option<Uuid>,
    is_live: bool,
    scopes: Vec<String>,
    name: Option<String>,
    label: String,
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
    replaced_by: Option<Uuid>,
    is_valid: bool,
    lifetime_seconds: Option<i64>,
}

impl TryFrom<KeyRow> for KeyRecord {
    type Error = DbError;

    fn try_from(row: KeyRow) -> Result<Self, DbError> {
        let owner = row.merchant_id.map(MerchantId::from_uuid);
        let scopes = Scopes::of(row.scopes.iter().map(String::as_str));
        Ok(Self {
            api_key_id: ApiKeyId::from_uuid(row.api_key_id),
            owner: owner.map_or(KeyOwner::Operator, KeyOwner::Merchant),
            mode: if row.is_live { KeyMode::Live } else { KeyMode::Test },
            scopes: unreadable(scopes, "read an API key")?,
            name: row.name,
            label: row.label,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
            replaced_by: row.replaced_by.map(ApiKeyId::from_uuid),
            is_valid: row.is_valid,
            lifetime_seconds: row.lifetime_seconds,
        })
    }
}
