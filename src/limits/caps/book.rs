//! The book of caps and floors, for those who change them over HTTP.

use alloy::primitives::{Address, U256};
use sqlx::PgPool;

use crate::{
    audit::Actor,
    db::{DbError, During},
    domain::{ApiKeyId, ChainId, MerchantId},
};

use super::{
    cap::{Cap, CapId, CapTerms, Setter},
    floor::{self, Floor},
    store::{self, CapError, Usage, Viewer},
};

/// Caps and floors in a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CapBook {
    pool: PgPool,
}

impl CapBook {
    /// The caps in that database.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The caps that the viewer may see, after the one that is given.
    pub async fn list(
        &self,
        viewer: Viewer,
        after: Option<CapId>,
        n_max: i64,
    ) -> Result<Vec<Cap>, DbError> {
        let mut conn = self.pool.acquire().await.during("list caps")?;
        store::caps(&mut conn, viewer, after, n_max).await
    }

    /// A cap and what is used of it, if the viewer may see it.
    pub async fn find(
        &self,
        viewer: Viewer,
        cap_id: CapId,
    ) -> Result<Option<(Cap, Vec<Usage>)>, DbError> {
        let mut conn = self.pool.acquire().await.during("find a cap")?;
        let Some(cap) = store::cap(&mut conn, viewer, cap_id).await? else { return Ok(None) };
        Ok(Some((cap, store::usage(&mut conn, viewer, cap_id).await?)))
    }

    /// Sets a cap, or changes the limit of the one that is about the same.
    pub async fn set(
        &self,
        actor: &Actor,
        set_by: Setter,
        terms: CapTerms,
        most: U256,
    ) -> Result<Cap, CapError> {
        let mut db = self.pool.begin().await.during("set a cap")?;
        let cap = store::set_cap(&mut db, actor, set_by, terms, most).await?;
        db.commit().await.during("set a cap")?;
        Ok(cap)
    }

    /// Removes a cap. `None` if the setter has none of that id.
    pub async fn remove(
        &self,
        actor: &Actor,
        setter: Setter,
        cap_id: CapId,
    ) -> Result<Option<Cap>, DbError> {
        let mut db = self.pool.begin().await.during("remove a cap")?;
        let removed = store::remove_cap(&mut db, actor, setter, cap_id).await?;
        db.commit().await.during("remove a cap")?;
        Ok(removed)
    }

    /// Whose key it is.
    pub async fn key_merchant(&self, api_key_id: ApiKeyId) -> Result<Option<MerchantId>, DbError> {
        let mut conn = self.pool.acquire().await.during("find a key's merchant")?;
        store::key_merchant(&mut conn, api_key_id).await
    }

    /// Every floor.
    pub async fn floors(&self) -> Result<Vec<Floor>, DbError> {
        let mut conn = self.pool.acquire().await.during("list floors")?;
        floor::floors(&mut conn).await
    }

    /// Sets an asset's price, and so its floor.
    pub async fn set_floor(&self, actor: &Actor, floor: &Floor) -> Result<(), DbError> {
        let mut db = self.pool.begin().await.during("set a floor")?;
        floor::set_floor(&mut db, actor, floor).await?;
        db.commit().await.during("set a floor")
    }

    /// Takes it away. `None` if there is none.
    pub async fn remove_floor(
        &self,
        actor: &Actor,
        chain_id: ChainId,
        asset: Address,
    ) -> Result<Option<Floor>, DbError> {
        let mut db = self.pool.begin().await.during("remove a floor")?;
        let removed = floor::remove_floor(&mut db, actor, chain_id, asset).await?;
        db.commit().await.during("remove a floor")?;
        Ok(removed)
    }
}
