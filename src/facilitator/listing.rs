//! Changes of lists, each in one database transaction that keeps claims away: what is claimed once a
//! change stands obeys it.

use sqlx::PgPool;

use crate::{
    audit::Actor,
    db::{DbError, During},
    limits,
    lists::{
        self, Changed, Entry, Filter, ListFull, NewEntry, Owner, RefusalFilter, RefusalRecord,
    },
};

/// How many entries one change may have: claims wait for it.
pub const N_CHANGED_MAX: usize = 1_000;

/// The lists, to be read and changed by people. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Listing {
    pool: PgPool,
}

impl Listing {
    /// The lists in that database.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Writes entries into the lists of an owner; all of them, or none.
    pub async fn add(
        &self,
        actor: &Actor,
        owner: Owner,
        entries: &[NewEntry],
    ) -> Result<Result<Changed, ListFull>, DbError> {
        let mut db = self.pool.begin().await.during("change lists")?;
        limits::change_rules(&mut db).await?;
        let changed = lists::add(&mut db, actor, owner, entries).await?;
        if changed.is_ok() {
            db.commit().await.during("change lists")?;
        }
        Ok(changed)
    }

    /// Takes entries out of the lists of an owner.
    pub async fn remove(
        &self,
        actor: &Actor,
        owner: Owner,
        entries: &[NewEntry],
    ) -> Result<Changed, DbError> {
        let mut db = self.pool.begin().await.during("change lists")?;
        limits::change_rules(&mut db).await?;
        let changed = lists::remove(&mut db, actor, owner, entries).await?;
        db.commit().await.during("change lists")?;
        Ok(changed)
    }

    /// Takes one entry out, if it is in a list of `owner`, or of anybody's where that is `None`. `false` if
    /// there is no such entry.
    pub async fn remove_entry(
        &self,
        actor: &Actor,
        owner: Option<Owner>,
        entry_id: i64,
    ) -> Result<bool, DbError> {
        let mut db = self.pool.begin().await.during("change lists")?;
        limits::change_rules(&mut db).await?;
        let found = lists::find(&mut db, entry_id).await?;
        let found = found.filter(|(found, _)| owner.is_none_or(|owner| owner == *found));
        let Some((owner, entry)) = found else { return Ok(false) };
        lists::remove(&mut db, actor, owner, &[entry]).await?;
        db.commit().await.during("change lists")?;
        Ok(true)
    }

    /// Entries in the order of writing.
    pub async fn entries(&self, filter: &Filter) -> Result<Vec<Entry>, DbError> {
        let mut conn = self.pool.acquire().await.during("read lists")?;
        lists::entries(&mut conn, filter).await
    }

    /// Denials, the newest first.
    pub async fn refusals(&self, filter: &RefusalFilter) -> Result<Vec<RefusalRecord>, DbError> {
        let mut conn = self.pool.acquire().await.during("read denials")?;
        lists::refusals(&mut conn, filter).await
    }
}
