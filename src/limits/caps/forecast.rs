//! What caps would say to a claim, as of a second ago: for verification, which is asked far more often.

use std::{collections::HashSet, hash::Hash, sync::Arc, time::Duration};

use alloy::primitives::Address;
use moka::future::Cache;
use sqlx::PgPool;

use crate::db::{DbError, During};

use super::standing::{Concern, Place, Standing, Visit, concern, named_payers, standing};

/// How long the books are not asked again.
const TTL: Duration = Duration::from_secs(1);
/// How many places are remembered, and how many visits; 200 bytes each, and their caps.
const N_KEPT_MAX: u64 = 50_000;
/// How many payers that caps name are held in memory. Where there are more, each payer is asked for.
const N_NAMED_MAX: i64 = 10_000;

/// What the books said of late.
#[derive(Debug, Clone)]
pub struct Forecast {
    pool: PgPool,
    concerns: Cache<Place, Concern>,
    named: Cache<(), Arc<Named>>,
    standings: Cache<Visit, Arc<Standing>>,
}

/// Which payers caps name.
#[derive(Debug)]
enum Named {
    These(HashSet<Address>),
    Many,
}

impl Forecast {
    /// Of the caps in that database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, concerns: cache(), named: cache(), standings: cache() }
    }

    /// What stood about a visit at most a second ago. Where no cap is about it, as is usual, the books are
    /// asked once a second for all payers together.
    pub async fn standing(
        &self,
        place: Place,
        payer: Address,
    ) -> Result<Arc<Standing>, Arc<DbError>> {
        let concern = self.concerns.try_get_with(place, self.concern(place)).await?;
        let is_about_payer = concern == Concern::Payers || self.named().await?.may_include(&payer);
        if concern == Concern::Nothing && !is_about_payer {
            return Ok(Arc::new(Standing::NOTHING));
        }
        let visit = Visit { place, payer: is_about_payer.then_some(payer) };
        self.standings.try_get_with(visit, self.read(visit)).await
    }

    async fn concern(&self, place: Place) -> Result<Concern, DbError> {
        let mut conn = self.pool.acquire().await.during("look for caps")?;
        concern(&mut conn, &place).await
    }

    async fn read(&self, visit: Visit) -> Result<Arc<Standing>, DbError> {
        let mut conn = self.pool.acquire().await.during("read the caps")?;
        Ok(Arc::new(standing(&mut conn, &visit).await?))
    }

    async fn named(&self) -> Result<Arc<Named>, Arc<DbError>> {
        let read = async {
            let mut conn = self.pool.acquire().await.during("read whom caps name")?;
            let named = named_payers(&mut conn, N_NAMED_MAX).await?;
            let is_cut = i64::try_from(named.len()).is_ok_and(|n| n == N_NAMED_MAX);
            let named =
                if is_cut { Named::Many } else { Named::These(named.into_iter().collect()) };
            Ok(Arc::new(named))
        };
        self.named.try_get_with((), read).await
    }
}

impl Named {
    fn may_include(&self, payer: &Address) -> bool {
        match self {
            Self::These(named) => named.contains(payer),
            Self::Many => true,
        }
    }
}

fn cache<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static>() -> Cache<K, V> {
    Cache::builder().max_capacity(N_KEPT_MAX).time_to_live(TTL).build()
}
