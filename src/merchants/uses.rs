//! When keys were last used, without a write for each use.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{DbError, During},
    domain::{ApiKeyId, UnixTime},
    telemetry::causes,
};

use super::store;

/// How often what was noted is written: so old "last used" can be.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);
/// How many keys are noted between two writes. The use of more is not.
const N_NOTED_MAX: usize = 100_000;
/// How many are written by one statement.
const N_WRITTEN_TOGETHER: usize = 5_000;

/// Uses that were not written yet.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<BTreeMap<Uuid, UnixTime>>);

impl Uses {
    /// Notes a use.
    pub(super) fn note(&self, api_key_id: ApiKeyId, now: UnixTime) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = noted.len() >= N_NOTED_MAX;
        match noted.get_mut(&api_key_id.as_uuid()) {
            Some(at) => *at = now.max(*at),
            None if is_full => (),
            None => drop(noted.insert(api_key_id.as_uuid(), now)),
        }
    }

    /// Writes what was noted, every half minute and at the end.
    pub(super) async fn write_until(&self, pool: &PgPool, stop: &CancellationToken) {
        loop {
            let goes_on =
                stop.run_until_cancelled(tokio::time::sleep(WRITE_INTERVAL)).await.is_some();
            if let Err(error) = self.write(pool).await {
                tracing::warn!(error = causes(&error), "could not write when keys were last used");
            }
            if !goes_on {
                return;
            }
        }
    }

    /// What cannot be written is lost: the next use makes up for it.
    async fn write(&self, pool: &PgPool) -> Result<(), DbError> {
        let noted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let noted: Vec<(Uuid, UnixTime)> = noted.into_iter().collect();
        for some in noted.chunks(N_WRITTEN_TOGETHER) {
            let mut conn = pool.acquire().await.during("write when keys were last used")?;
            store::write_uses(&mut conn, some).await?;
        }
        Ok(())
    }
}
