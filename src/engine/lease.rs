//! Who works: every wallet and every chain's follower has one owner among all processes.
//!
//! The database's clock decides. An owner also stops by its own clock before its lease can have
//! ended, and everything it commits holds the lease's row: one that slept through a takeover writes
//! nothing. What it sends in that moment was stored under its epoch, so its successor knows it.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{db::During, faults::crash_point, telemetry::causes};

use super::{Engine, EngineError, store};

/// A lease that this process holds.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) name: String,
    pub(super) epoch: i64,
    /// From when on it can be another's, by our own clock.
    trusted_until: Instant,
}

impl Lease {
    /// Keeps the lease ours until the surrounding transaction ends.
    pub(super) async fn hold(&self, conn: &mut PgConnection) -> Result<(), EngineError> {
        if store::hold_lease(conn, &self.name, self.epoch).await? {
            return Ok(());
        }
        Err(EngineError::LeaseLost { name: self.name.clone() })
    }
}

impl Engine {
    /// Takes a lease, if it is free.
    pub(super) async fn acquire(&self, name: &str) -> Result<Option<Lease>, EngineError> {
        let trusted_until = self.trusted_until();
        let mut conn = self.pool.acquire().await.during("take a lease")?;
        let epoch =
            store::acquire_lease(&mut conn, name, self.replica_id, self.options.lease).await?;
        let lease = epoch.map(|epoch| Lease { name: name.to_owned(), epoch, trusted_until });
        if let Some(lease) = &lease {
            tracing::info!(lease.name = name, lease.epoch = lease.epoch, "took a lease");
            metrics::counter!("quittance_lease_epochs_total", "lease" => name.to_owned())
                .increment(1);
            crash_point("lease.acquired");
        }
        Ok(lease)
    }

    /// Renews a lease until it is lost.
    pub(super) async fn keep(&self, lease: &Lease) {
        let mut trusted_until = lease.trusted_until;
        loop {
            tokio::time::sleep(self.options.lease.mul_f64(RENEW_AFTER)).await;
            let renewed_until = self.trusted_until();
            let renewed = async {
                let mut conn = self.pool.acquire().await.during("renew a lease")?;
                store::renew_lease(&mut conn, &lease.name, lease.epoch, self.options.lease).await
            };
            match tokio::time::timeout_at(trusted_until, renewed).await {
                Ok(Ok(true)) => trusted_until = renewed_until,
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    tracing::warn!(error = causes(&error), lease.name, "could not renew a lease");
                    if Instant::now() >= trusted_until {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        crash_point("lease.lost");
        tracing::warn!(lease.name, lease.epoch, "lost a lease");
    }

    /// Gives a lease back. If that fails, it ends by itself.
    pub(super) async fn release(&self, lease: &Lease) {
        let released = async {
            let mut conn = self.pool.acquire().await.during("release a lease")?;
            store::release_lease(&mut conn, &lease.name, lease.epoch).await
        };
        match tokio::time::timeout(RELEASE_TIMEOUT, released).await {
            Ok(Ok(())) => tracing::info!(lease.name, lease.epoch, "released a lease"),
            _ => tracing::warn!(lease.name, lease.epoch, "could not release a lease"),
        }
    }

    fn trusted_until(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.options.lease.mul_f64(TRUST)).unwrap_or(now)
    }
}

/// After which part of its length a lease is renewed.
const RENEW_AFTER: f64 = 0.3;
/// For which part of its length we trust it without renewal: our clock may be slower than the
/// database's.
const TRUST: f64 = 0.7;
/// How long giving a lease back may take, at a stop.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
