//! The lists, the sanctions file and the oracles: put together, and kept up to date.

use std::sync::Arc;

use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::SanctionsSettings,
    facilitator::{Deniers, Oracle},
    lists::{Lists, Refusals, Sanctions, SanctionsError, SanctionsOptions},
};

use super::clock;

/// What denies payments.
///
/// # Errors
/// When there is to be a sanctions file and it cannot be used.
pub(super) async fn deniers(
    pool: &PgPool,
    settings: &SanctionsSettings,
) -> Result<Deniers, SanctionsError> {
    Ok(Deniers {
        lists: Lists::new(pool.clone()),
        sanctions: sanctions(settings).await?.map(Arc::new),
        refusals: Arc::new(Refusals::new(pool.clone())),
    })
}

/// The sanctions file, if there is to be one.
pub(super) async fn sanctions(
    settings: &SanctionsSettings,
) -> Result<Option<Sanctions>, SanctionsError> {
    let Some(path) = settings.path.clone() else { return Ok(None) };
    let options = SanctionsOptions {
        path,
        age_max: settings.age_max(),
        poll_interval: settings.poll_interval(),
        fails_when_stale: settings.fail_when_stale,
        clock: clock::now,
    };
    Sanctions::open(options).await.map(Some)
}

/// Starts what watches the file, asks the oracles and writes denials down.
pub(super) fn start(
    loops: &mut JoinSet<()>,
    pool: &PgPool,
    replica_id: Uuid,
    deniers: &Deniers,
    oracles: &[Arc<Oracle>],
    stop: &CancellationToken,
) {
    for oracle in oracles {
        let (oracle, stop) = (Arc::clone(oracle), stop.clone());
        loops.spawn(async move { oracle.run(&stop).await });
    }
    if let Some(sanctions) = deniers.sanctions.clone() {
        let (pool, replica, stop) = (pool.clone(), replica_id.to_string(), stop.clone());
        loops.spawn(async move { sanctions.run(&pool, &replica, &stop).await });
    }
    let (refusals, stop) = (Arc::clone(&deniers.refusals), stop.clone());
    loops.spawn(async move { refusals.run(&stop).await });
}
