//! The book of keys. Every change is audited in its database transaction.

use sqlx::{PgConnection, PgPool};

use crate::{
    audit::{self, Actor, Change},
    db::{DbError, During},
    domain::{ApiKeyId, KeyMode},
};

use super::{ApiKey, Caller, KeyOwner, KeyRecord, MerchantStatus, Pepper, Scopes, store};

/// How many keys of a merchant may work at a time.
pub const N_KEYS_MAX: u64 = 100;

/// Why a key is not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The database could not be read or written.
    #[error(transparent)]
    Db(#[from] DbError),
    /// There is no such key, or it is somebody else's.
    #[error("there is no such key")]
    Unknown,
    /// There is no such merchant.
    #[error("there is no such merchant")]
    UnknownMerchant,
    /// Its merchant is closed.
    #[error("the merchant is closed, which is final")]
    Closed,
    /// There are enough.
    #[error("the merchant has {N_KEYS_MAX} keys that work, which are the most; revoke one first")]
    TooMany,
    /// It works no longer, so that nothing can take its place.
    #[error("the key works no longer; create another one")]
    Over,
    /// Another took its place already.
    #[error("another key took this one's place already")]
    Replaced,
    /// The other mode.
    #[error("a {} key makes no {} keys", own.as_str(), asked.as_str())]
    BeyondMode {
        /// Of the key that is used.
        own: KeyMode,
        /// Of the key that is asked for.
        asked: KeyMode,
    },
    /// More than it may itself.
    #[error("the key has the scopes {own}, and makes no keys with others")]
    BeyondScopes {
        /// Of the key that is used.
        own: Scopes,
    },
}

/// A key about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Whose.
    pub owner: KeyOwner,
    /// For which chains.
    pub mode: KeyMode,
    /// For what.
    pub scopes: Scopes,
    /// What its owner calls it.
    pub name: Option<String>,
    /// How long it lives, if it ends.
    pub lifetime_seconds: Option<i64>,
}

/// What somebody may do with keys.
#[derive(Debug, Clone, Copy)]
pub enum Authority<'a> {
    /// Everything.
    Operator,
    /// To its own, no more than the key that is used may itself.
    Merchant(&'a Caller),
}

impl Authority<'_> {
    fn reaches(self, owner: KeyOwner) -> bool {
        match self {
            Self::Operator => true,
            Self::Merchant(caller) => owner == KeyOwner::Merchant(caller.merchant_id),
        }
    }

    fn may_make(self, mode: KeyMode, scopes: Scopes) -> Result<(), KeysError> {
        let Self::Merchant(caller) = self else { return Ok(()) };
        if mode != caller.mode {
            return Err(KeysError::BeyondMode { own: caller.mode, asked: mode });
        }
        if !scopes.within(caller.scopes) {
            return Err(KeysError::BeyondScopes { own: caller.scopes });
        }
        Ok(())
    }
}

/// The book of keys in a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    pool: PgPool,
    pepper: Pepper,
}

impl ApiKeys {
    /// The keys in that database, hashed with that pepper.
    pub const fn new(pool: PgPool, pepper: Pepper) -> Self {
        Self { pool, pepper }
    }

    /// Makes a key. It cannot be shown again.
    pub async fn create(
        &self,
        actor: &Actor,
        authority: Authority<'_>,
        new: &NewKey,
    ) -> Result<(ApiKey, KeyRecord), KeysError> {
        let mut db = self.pool.begin().await.during("create an API key")?;
        let made = self.create_in(&mut db, actor, authority, new).await?;
        db.commit().await.during("create an API key")?;
        Ok(made)
    }

    /// The same in the caller's database transaction.
    pub(super) async fn create_in(
        &self,
        conn: &mut PgConnection,
        actor: &Actor,
        authority: Authority<'_>,
        new: &NewKey,
    ) -> Result<(ApiKey, KeyRecord), KeysError> {
        if !authority.reaches(new.owner) {
            return Err(KeysError::UnknownMerchant);
        }
        authority.may_make(new.mode, new.scopes)?;
        check_room(conn, new.owner).await?;
        let (key, created) = self.insert(conn, new).await?;
        record(conn, actor, "key.create", None, &created).await?;
        Ok((key, created))
    }

    /// Makes a key that takes the place of another one, which goes on for the overlap. It is for the same
    /// things, and lives as long as the other was made to.
    pub async fn rotate(
        &self,
        actor: &Actor,
        authority: Authority<'_>,
        api_key_id: ApiKeyId,
        overlap_seconds: i64,
    ) -> Result<(ApiKey, KeyRecord), KeysError> {
        let mut db = self.pool.begin().await.during("replace an API key")?;
        let before = held(&mut db, authority, api_key_id).await?;
        authority.may_make(before.mode, before.scopes)?;
        if before.replaced_by.is_some() {
            return Err(KeysError::Replaced);
        }
        if !before.is_valid {
            return Err(KeysError::Over);
        }
        check_room(&mut db, before.owner).await?;
        let new = NewKey {
            owner: before.owner,
            mode: before.mode,
            scopes: before.scopes,
            name: before.name.clone(),
            lifetime_seconds: before.lifetime_seconds,
        };
        let (key, created) = self.insert(&mut db, &new).await?;
        store::end_key(&mut db, api_key_id, created.api_key_id, overlap_seconds).await?;
        let after = found(&mut db, api_key_id).await?;
        record(&mut db, actor, "key.create", None, &created).await?;
        record(&mut db, actor, "key.rotate", Some(&before), &after).await?;
        db.commit().await.during("replace an API key")?;
        Ok((key, created))
    }

    /// Makes a key void, on every process within a second. One that is void stays so.
    pub async fn revoke(
        &self,
        actor: &Actor,
        authority: Authority<'_>,
        api_key_id: ApiKeyId,
    ) -> Result<KeyRecord, KeysError> {
        let mut db = self.pool.begin().await.during("revoke an API key")?;
        let before = held(&mut db, authority, api_key_id).await?;
        if before.revoked_at.is_some() {
            return Ok(before);
        }
        store::revoke_key(&mut db, api_key_id).await?;
        let after = found(&mut db, api_key_id).await?;
        record(&mut db, actor, "key.revoke", Some(&before), &after).await?;
        db.commit().await.during("revoke an API key")?;
        Ok(after)
    }

    /// What is known of a key.
    pub async fn find(&self, api_key_id: ApiKeyId) -> Result<KeyRecord, KeysError> {
        let mut conn = self.pool.acquire().await.during("read an API key")?;
        found(&mut conn, api_key_id).await
    }

    /// The keys of a merchant, or of operators, in the order of their creation, those after `after`.
    pub async fn page(
        &self,
        owner: KeyOwner,
        after: Option<ApiKeyId>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, KeysError> {
        let mut conn = self.pool.acquire().await.during("read API keys")?;
        Ok(store::keys_after(&mut conn, owner, after, i64::from(limit)).await?)
    }

    async fn insert(
        &self,
        conn: &mut PgConnection,
        new: &NewKey,
    ) -> Result<(ApiKey, KeyRecord), KeysError> {
        let key = ApiKey::generate(new.mode);
        let hash = key.hash(&self.pepper);
        let api_key_id = store::insert_key(conn, new, &key.label(), hash).await?;
        Ok((key, found(conn, api_key_id).await?))
    }
}

/// Whether the owner may have one more. Holds the merchant, so that two cannot take the last place.
async fn check_room(conn: &mut PgConnection, owner: KeyOwner) -> Result<(), KeysError> {
    let Some(merchant_id) = owner.merchant_id() else { return Ok(()) };
    store::hold_merchant(conn, merchant_id).await?;
    let merchant = store::merchant(conn, merchant_id).await?.ok_or(KeysError::UnknownMerchant)?;
    if merchant.status == MerchantStatus::Closed {
        return Err(KeysError::Closed);
    }
    if store::count_valid_keys(conn, merchant_id).await? >= N_KEYS_MAX {
        return Err(KeysError::TooMany);
    }
    Ok(())
}

async fn held(
    conn: &mut PgConnection,
    authority: Authority<'_>,
    api_key_id: ApiKeyId,
) -> Result<KeyRecord, KeysError> {
    store::hold_key(conn, api_key_id).await?;
    let key = found(conn, api_key_id).await?;
    if authority.reaches(key.owner) { Ok(key) } else { Err(KeysError::Unknown) }
}

async fn found(conn: &mut PgConnection, api_key_id: ApiKeyId) -> Result<KeyRecord, KeysError> {
    store::find_key(conn, api_key_id).await?.ok_or(KeysError::Unknown)
}

async fn record(
    conn: &mut PgConnection,
    actor: &Actor,
    action: &str,
    before: Option<&KeyRecord>,
    after: &KeyRecord,
) -> Result<(), DbError> {
    let change = Change {
        action,
        subject: &after.subject(),
        merchant_id: after.owner.merchant_id(),
        before: before.map(KeyRecord::recorded),
        after: Some(after.recorded()),
    };
    audit::record(conn, actor, &change).await
}
