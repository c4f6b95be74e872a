//! The book of merchants. Every change is audited in its database transaction.

use sqlx::{PgConnection, PgPool};

use crate::{
    audit::{self, Actor, Change},
    db::{DbError, During},
    domain::{Depth, MerchantId},
};

use super::{Assets, Merchant, MerchantStatus, Name, Why, store};

/// Why a merchant is not as somebody wants it.
#[derive(Debug, thiserror::Error)]
pub enum MerchantsError {
    /// The database could not be read or written.
    #[error(transparent)]
    Db(#[from] DbError),
    /// There is none.
    #[error("there is no such merchant")]
    Unknown,
    /// Another one has the name.
    #[error("a merchant of that name exists")]
    NameTaken,
    /// It is closed, which is final.
    #[error("the merchant is closed, which is final")]
    Closed,
}

/// A merchant about to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMerchant {
    /// Under which name.
    pub name: Name,
    /// How deep its payments must stand before it is told success.
    pub wait_for: Depth,
    /// What it may be paid in.
    pub assets: Assets,
}

/// What of a merchant is to be changed; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Its name.
    pub name: Option<Name>,
    /// How deep its payments must stand before it is told success. Payments that were claimed before keep
    /// the depth of their claim.
    pub wait_for: Option<Depth>,
    /// What it may be paid in. Payments that were claimed before are settled all the same.
    pub assets: Option<Assets>,
}

/// The book of merchants in a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Merchants {
    pub(super) pool: PgPool,
}

impl Merchants {
    /// The merchants in that database.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Creates a merchant.
    pub async fn create(
        &self,
        actor: &Actor,
        new: &NewMerchant,
    ) -> Result<Merchant, MerchantsError> {
        let mut db = self.pool.begin().await.during("create a merchant")?;
        let created = create(&mut db, actor, new).await?;
        db.commit().await.during("create a merchant")?;
        Ok(created)
    }

    /// Changes a merchant. Processes that run notice it within a second.
    pub async fn change(
        &self,
        actor: &Actor,
        merchant_id: MerchantId,
        wishes: &Wishes,
    ) -> Result<Merchant, MerchantsError> {
        let mut db = self.pool.begin().await.during("change a merchant")?;
        let before = held(&mut db, merchant_id).await?;
        if before.status == MerchantStatus::Closed {
            return Err(MerchantsError::Closed);
        }
        if let Some(name) = &wishes.name
            && !store::rename_merchant(&mut db, merchant_id, name.as_str()).await?
        {
            return Err(MerchantsError::NameTaken);
        }
        if let Some(wait_for) = wishes.wait_for {
            store::set_wait_for(&mut db, merchant_id, wait_for).await?;
        }
        if let Some(assets) = &wishes.assets {
            store::set_assets(&mut db, merchant_id, assets).await?;
        }
        let after = held(&mut db, merchant_id).await?;
        record(&mut db, actor, "merchant.set", Some(&before), &after).await?;
        db.commit().await.during("change a merchant")?;
        Ok(after)
    }

    /// Suspends, resumes or closes a merchant. One that is so already keeps its reason.
    pub async fn move_to(
        &self,
        actor: &Actor,
        merchant_id: MerchantId,
        status: MerchantStatus,
        why: &Why,
    ) -> Result<Merchant, MerchantsError> {
        let mut db = self.pool.begin().await.during("change a merchant's status")?;
        let before = held(&mut db, merchant_id).await?;
        if before.status == status {
            return Ok(before);
        }
        if before.status == MerchantStatus::Closed {
            return Err(MerchantsError::Closed);
        }
        store::set_status(&mut db, merchant_id, status, why.as_str()).await?;
        let after = held(&mut db, merchant_id).await?;
        let action = match status {
            MerchantStatus::Active => "merchant.resume",
            MerchantStatus::Suspended => "merchant.suspend",
            MerchantStatus::Closed => "merchant.close",
        };
        record(&mut db, actor, action, Some(&before), &after).await?;
        db.commit().await.during("change a merchant's status")?;
        Ok(after)
    }

    /// The merchant with that id.
    pub async fn find(&self, merchant_id: MerchantId) -> Result<Merchant, MerchantsError> {
        let mut conn = self.pool.acquire().await.during("read a merchant")?;
        store::merchant(&mut conn, merchant_id).await?.ok_or(MerchantsError::Unknown)
    }

    /// The merchant with that name or id.
    pub async fn named(&self, name_or_id: &str) -> Result<Merchant, MerchantsError> {
        let mut conn = self.pool.acquire().await.during("find a merchant")?;
        let found = store::find_merchant(&mut conn, name_or_id).await?;
        let merchant_id = found.ok_or(MerchantsError::Unknown)?;
        store::merchant(&mut conn, merchant_id).await?.ok_or(MerchantsError::Unknown)
    }

    /// Merchants in the order of their creation, those after `after`.
    pub async fn page(
        &self,
        after: Option<MerchantId>,
        limit: u32,
    ) -> Result<Vec<Merchant>, MerchantsError> {
        let mut conn = self.pool.acquire().await.during("read merchants")?;
        Ok(store::merchants_after(&mut conn, after, i64::from(limit)).await?)
    }
}

/// Creates a merchant, in the caller's database transaction.
pub(super) async fn create(
    conn: &mut PgConnection,
    actor: &Actor,
    new: &NewMerchant,
) -> Result<Merchant, MerchantsError> {
    let created = store::insert_merchant(conn, new.name.as_str(), new.wait_for).await?;
    let merchant_id = created.ok_or(MerchantsError::NameTaken)?;
    store::set_assets(conn, merchant_id, &new.assets).await?;
    let after = held(conn, merchant_id).await?;
    record(conn, actor, "merchant.create", None, &after).await?;
    Ok(after)
}

pub(super) async fn held(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
) -> Result<Merchant, MerchantsError> {
    store::hold_merchant(conn, merchant_id).await?;
    store::merchant(conn, merchant_id).await?.ok_or(MerchantsError::Unknown)
}

async fn record(
    conn: &mut PgConnection,
    actor: &Actor,
    action: &str,
    before: Option<&Merchant>,
    after: &Merchant,
) -> Result<(), DbError> {
    let change = Change {
        action,
        subject: &after.merchant_id.to_string(),
        merchant_id: Some(after.merchant_id),
        before: before.map(Merchant::shown),
        after: Some(after.shown()),
    };
    audit::record(conn, actor, &change).await
}
