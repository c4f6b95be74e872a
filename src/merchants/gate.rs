//! From a presented key to whoever holds it.
//!
//! A key that the database confirmed is believed for less than a second, counted from before the question,
//! so that what an operator does takes effect on every replica within that second.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    db::{DbError, During},
    domain::{ApiKeyId, Depth, KeyMode, MerchantId, OwnRates, UnixTime},
};

use super::{
    Assets, KeyHash, MerchantStatus, Payees, Pepper, PresentedKey, Scopes,
    attempts::Attempts,
    store::{self, Known},
    uses::Uses,
};

/// How long a key is believed without asking the database.
const BELIEVED_FOR: Duration = Duration::from_millis(500);
/// How many keys are believed at a time; about 300 bytes each.
const N_KNOWN_MAX: u64 = 100_000;
/// How long a key that was good is looked up whoever else fails at its address.
const MET_FOR: Duration = Duration::from_secs(3_600);

/// A merchant, known by one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub merchant_id: MerchantId,
    /// By which key.
    pub api_key_id: ApiKeyId,
    /// For which chains.
    pub mode: KeyMode,
    /// For what.
    pub scopes: Scopes,
    /// Whether its payments are taken.
    pub status: MerchantStatus,
    /// How deep its payments must stand before it is told success, unless a request says otherwise.
    pub wait_for: Depth,
    /// What it may be paid in.
    pub assets: Assets,
    /// How often it may ask, where the operator gave it rates of its own.
    pub rates: OwnRates,
    /// Where it may be paid.
    pub payees: Payees,
}

/// An operator, known by one of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator {
    /// By which key.
    pub api_key_id: ApiKeyId,
    /// What stands in the key; operators' keys are for all chains.
    pub mode: KeyMode,
    /// For what.
    pub scopes: Scopes,
}

/// Whoever holds a valid key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A merchant, whatever its status.
    Merchant(Caller),
    /// An operator.
    Operator(Operator),
}

impl Principal {
    /// By which key.
    pub const fn api_key_id(&self) -> ApiKeyId {
        match self {
            Self::Merchant(caller) => caller.api_key_id,
            Self::Operator(operator) => operator.api_key_id,
        }
    }

    /// For what.
    pub const fn scopes(&self) -> Scopes {
        match self {
            Self::Merchant(caller) => caller.scopes,
            Self::Operator(operator) => operator.scopes,
        }
    }
}

/// Why a presented key opens nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Denied {
    /// It is not a key: mistyped, or cut. Nobody was asked.
    #[error("this is not an API key: it is mistyped or cut")]
    Misspelled,
    /// Nobody holds it.
    #[error("nobody holds this API key; it may have been revoked, or have expired")]
    Unknown,
    /// Its address has presented too many of those. Nobody was asked.
    #[error("too many API keys that nobody holds came from this address")]
    TooManyAttempts {
        /// When it may try again.
        retry_after: Duration,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Db(Arc<DbError>),
}

/// How a gate is set up.
#[derive(Debug, Clone)]
pub struct GateOptions {
    /// What keys are hashed with.
    pub pepper: Pepper,
    /// How often an address may fail a minute, once its burst is spent.
    pub failed_attempts_per_minute: u32,
    /// How often at once.
    pub failed_attempts_burst: u32,
}

/// Where keys are presented. One per process.
#[derive(Debug)]
pub struct Gate {
    pool: PgPool,
    pepper: Pepper,
    known: Cache<KeyHash, Arc<Known>>,
    /// Keys that were good when they were last looked up. Somebody else's failures at a shared address
    /// do not shut them out.
    met: Cache<KeyHash, ()>,
    attempts: Attempts,
    uses: Uses,
}

/// Ends belief in time, the duration of the question included.
struct Belief;

impl Expiry<KeyHash, Arc<Known>> for Belief {
    fn expire_after_create(
        &self,
        _: &KeyHash,
        known: &Arc<Known>,
        now: Instant,
    ) -> Option<Duration> {
        Some(BELIEVED_FOR.saturating_sub(now.saturating_duration_since(known.asked_at)))
    }
}

/// Why a lookup found nothing to believe.
enum NotFound {
    Nobody,
    Db(Arc<DbError>),
}

impl Gate {
    /// A gate before the keys in that database.
    pub fn new(pool: PgPool, options: GateOptions) -> Self {
        let GateOptions { pepper, failed_attempts_per_minute, failed_attempts_burst } = options;
        Self {
            pool,
            pepper,
            known: Cache::builder().max_capacity(N_KNOWN_MAX).expire_after(Belief).build(),
            met: Cache::builder().max_capacity(N_KNOWN_MAX).time_to_live(MET_FOR).build(),
            attempts: Attempts::new(failed_attempts_per_minute, failed_attempts_burst),
            uses: Uses::default(),
        }
    }

    /// Who holds `presented`, a text that came from `address`. Lookups are by a keyed hash, so their time
    /// tells nothing about any key. Unknown keys are not remembered, so that nobody can push the known
    /// ones out.
    pub async fn authenticate(
        &self,
        presented: &str,
        address: IpAddr,
        now: UnixTime,
    ) -> Result<Principal, Denied> {
        let Ok(key) = PresentedKey::parse(presented) else {
            self.check_attempts(address)?;
            self.attempts.count(address, Instant::now());
            return Err(Denied::Misspelled);
        };
        let hash = self.pepper.hash(key);
        let believed = match self.known.get(&hash).await {
            Some(known) => Some(known),
            None => self.look_up(hash, address).await?,
        };
        match believed {
            Some(known) if known.expires_at.is_none_or(|at| now < at) => {
                self.uses.note(known.principal.api_key_id(), now);
                Ok(known.principal.clone())
            }
            _ => {
                self.check_attempts(address)?;
                self.attempts.count(address, Instant::now());
                Err(Denied::Unknown)
            }
        }
    }

    /// Writes when keys were last used, until it is told to stop.
    pub async fn write_uses_until(&self, stop: &CancellationToken) {
        self.uses.write_until(&self.pool, stop).await;
    }

    /// Asks the database once for all who present the same key now.
    async fn look_up(&self, hash: KeyHash, address: IpAddr) -> Result<Option<Arc<Known>>, Denied> {
        if !self.met.contains_key(&hash) {
            self.check_attempts(address)?;
        }
        let found = self.known.try_get_with(hash, async {
            let mut conn = self.pool.acquire().await.during("look up an API key")?;
            store::find_principal(&mut conn, hash).await?.map(Arc::new).ok_or(NotFound::Nobody)
        });
        match found.await {
            Ok(known) => {
                self.met.insert(hash, ()).await;
                Ok(Some(known))
            }
            Err(error) => match &*error {
                NotFound::Nobody => {
                    self.met.invalidate(&hash).await;
                    Ok(None)
                }
                NotFound::Db(error) => Err(Denied::Db(Arc::clone(error))),
            },
        }
    }

    fn check_attempts(&self, address: IpAddr) -> Result<(), Denied> {
        match self.attempts.wait(address, Instant::now()) {
            Some(retry_after) => Err(Denied::TooManyAttempts { retry_after }),
            None => Ok(()),
        }
    }
}

impl From<DbError> for NotFound {
    fn from(error: DbError) -> Self {
        Self::Db(Arc::new(error))
    }
}
