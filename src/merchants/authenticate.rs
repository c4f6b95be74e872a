//! From a presented key to whoever holds it.

use std::time::Duration;

use moka::future::Cache;
use sqlx::PgPool;

use crate::{
    db::{DbError, During},
    domain::{ApiKeyId, Depth, KeyMode, MerchantId},
};

use super::{Assets, KeyHash, store};

/// How long a key is believed without asking the database: so long a revocation can take.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// How many keys are remembered; about 100 bytes each.
const N_CACHED_MAX: u64 = 100_000;
/// The longest presented key that is looked at.
const MAX_KEY_BYTES: usize = 200;

/// A merchant, known by one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub merchant_id: MerchantId,
    /// By which key.
    pub api_key_id: ApiKeyId,
    /// For which chains.
    pub mode: KeyMode,
    /// How deep its payments must stand before it is told success, unless a request says otherwise.
    pub wait_for: Depth,
    /// What it may be paid in.
    pub assets: Assets,
}

/// Whoever holds a valid key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A merchant.
    Merchant(Caller),
    /// An operator.
    Operator,
}

/// The book of keys. Lookups are by hash, so their time tells nothing about any key.
#[derive(Debug, Clone)]
pub struct Merchants {
    pool: PgPool,
    known: Cache<KeyHash, Principal>,
}

impl Merchants {
    /// The keys in that database.
    pub fn new(pool: PgPool) -> Self {
        let known = Cache::builder().max_capacity(N_CACHED_MAX).time_to_live(CACHE_TTL).build();
        Self { pool, known }
    }

    /// Who holds `presented`; `None` if nobody does. Unknown keys are not remembered, so that nobody
    /// can push the known ones out.
    pub async fn authenticate(&self, presented: &str) -> Result<Option<Principal>, DbError> {
        if presented.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        let hash = KeyHash::of(presented);
        if let Some(principal) = self.known.get(&hash).await {
            return Ok(Some(principal));
        }
        let mut conn = self.pool.acquire().await.during("look up an API key")?;
        let found = store::find_principal(&mut conn, hash).await?;
        if let Some(principal) = found.clone() {
            self.known.insert(hash, principal).await;
        }
        Ok(found)
    }
}
