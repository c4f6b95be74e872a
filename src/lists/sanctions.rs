//! The sanctions file in force. Read at the start, and again whenever the file changes.
//!
//! A file that cannot be read while the service runs changes nothing: the list before it stays in force,
//! and people are told. A list that grew too old stays in force too.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{self, Actor, Change},
    db::{DbError, During},
    domain::UnixTime,
    telemetry::causes,
};

use super::{
    Denial, Denier, Parties, SanctionsFile, SanctionsFileError, sanctions_file::N_BYTES_MAX,
};

/// How the file is watched.
#[derive(Debug, Clone)]
pub struct SanctionsOptions {
    /// The file.
    pub path: PathBuf,
    /// How old the list may be before people are told.
    pub age_max: Duration,
    /// How often the file is looked at.
    pub poll_interval: Duration,
    /// Whether payments are refused an answer while the list is older than that.
    pub fails_when_stale: bool,
    /// Tells the time that the list's age is measured by.
    pub clock: fn() -> UnixTime,
}

/// A sanctions file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read the sanctions file {}", path.display())]
pub struct SanctionsError {
    path: PathBuf,
    #[source]
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    File(#[from] SanctionsFileError),
}

/// What tells one state of the file from another: its inode, its size, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen(Option<(u64, u64, i64, i64)>);

/// The sanctions list of this process.
#[derive(Debug)]
pub struct Sanctions {
    options: SanctionsOptions,
    in_force: RwLock<Arc<SanctionsFile>>,
    seen_at_start: Seen,
}

impl Sanctions {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing or broken: a service that was told to hold payments against a list does not
    /// start without one.
    pub async fn open(options: SanctionsOptions) -> Result<Self, SanctionsError> {
        let seen_at_start = look(&options.path).await;
        let file = read(&options.path).await?;
        let sanctions = Self { options, in_force: RwLock::new(Arc::new(file)), seen_at_start };
        sanctions.measure();
        Ok(sanctions)
    }

    /// The list in force.
    pub fn in_force(&self) -> Arc<SanctionsFile> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first party that the list names.
    pub fn denies(&self, parties: &Parties) -> Option<Denial> {
        let file = self.in_force();
        let (kind, address) = parties.named().find(|(_, address)| file.names(*address))?;
        let version = file.header().version.clone();
        Some(Denial { kind, address, denier: Denier::SanctionsFile, version })
    }

    /// How old the list is.
    pub fn age(&self) -> Duration {
        let (now, date) = ((self.options.clock)(), self.in_force().header().date);
        Duration::from_secs(now.seconds().saturating_sub(date.seconds()))
    }

    /// Whether it is older than it may be.
    pub fn is_stale(&self) -> bool {
        self.age() > self.options.age_max
    }

    /// What keeps payments from being answered, if that is the list's age.
    pub fn trouble(&self) -> Option<String> {
        let is_trouble = self.options.fails_when_stale && self.is_stale();
        is_trouble.then(|| "the sanctions file is older than it may be".to_owned())
    }

    /// Watches the file until `stop`, and records in `pool` which list came into force here.
    pub async fn run(&self, pool: &PgPool, replica: &str, stop: &CancellationToken) {
        let mut unrecorded = Some(Reload { action: "sanctions.load", before: None });
        let mut seen = self.seen_at_start;
        let mut is_told_stale = false;
        loop {
            if let Some(reload) = &unrecorded
                && let Err(error) = self.record(pool, replica, reload).await
            {
                tracing::warn!(
                    error = causes(&error),
                    "which sanctions list is in force could not be recorded yet"
                );
            } else {
                unrecorded = None;
            }
            is_told_stale = self.tell_if_stale(is_told_stale);
            let pause = tokio::time::sleep(self.options.poll_interval);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let now = look(&self.options.path).await;
            if now != seen {
                seen = now;
                let before = self.reload().await;
                // Of several that could not be recorded, the first one's past is told.
                let reload = before.map(|before| Reload { action: "sanctions.reload", before });
                unrecorded = unrecorded.or(reload);
            }
            self.measure();
        }
    }

    /// Reads the file again. What it replaced, if that was another list.
    async fn reload(&self) -> Option<Option<Value>> {
        let file = match read(&self.options.path).await {
            Ok(file) => file,
            Err(error) => {
                metrics::counter!("quittance_sanctions_reload_failures_total").increment(1);
                tracing::error!(
                    error = causes(&error),
                    version = self.in_force().header().version,
                    "the sanctions file cannot be used; the list before it stays in force"
                );
                return None;
            }
        };
        let before = self.in_force();
        if *before == file {
            return None;
        }
        tracing::info!(
            version = file.header().version,
            n_addresses = file.n_addresses(),
            "another sanctions list is in force"
        );
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
        Some(Some(before.told()))
    }

    async fn record(&self, pool: &PgPool, replica: &str, reload: &Reload) -> Result<(), DbError> {
        let subject: String = self.options.path.display().to_string().chars().take(400).collect();
        let change = Change {
            action: reload.action,
            subject: &subject,
            merchant_id: None,
            before: reload.before.clone(),
            after: Some(self.in_force().told()),
        };
        let mut conn = pool.acquire().await.during("record a change")?;
        audit::record(&mut conn, &Actor::service(replica), &change).await
    }

    /// Alarms once when the list grows too old. Whether it is.
    fn tell_if_stale(&self, is_told: bool) -> bool {
        let is_stale = self.is_stale();
        if is_stale && !is_told {
            tracing::error!(
                age_hours = self.age().as_secs() / 3_600,
                version = self.in_force().header().version,
                "the sanctions list is older than it may be, and stays in force"
            );
        }
        is_stale
    }

    fn measure(&self) {
        let gauge = |value: u64| f64::from(u32::try_from(value).unwrap_or(u32::MAX));
        let n_addresses = u64::try_from(self.in_force().n_addresses()).unwrap_or(u64::MAX);
        metrics::gauge!("quittance_sanctions_age_seconds").set(gauge(self.age().as_secs()));
        metrics::gauge!("quittance_sanctions_addresses").set(gauge(n_addresses));
        metrics::counter!("quittance_sanctions_reload_failures_total").increment(0);
    }
}

/// A list that came into force and is to be recorded.
#[derive(Debug)]
struct Reload {
    action: &'static str,
    before: Option<Value>,
}

async fn look(path: &Path) -> Seen {
    let metadata = tokio::fs::metadata(path).await.ok();
    Seen(metadata.map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec())))
}

/// Reads and checks a file.
async fn read(path: &Path) -> Result<SanctionsFile, SanctionsError> {
    let failed = |source| SanctionsError { path: path.to_owned(), source };
    let n_bytes = tokio::fs::metadata(path).await.map_err(|error| failed(error.into()))?.len();
    if n_bytes > N_BYTES_MAX {
        return Err(failed(SanctionsFileError::TooLong.into()));
    }
    let bytes = tokio::fs::read(path).await.map_err(|error| failed(error.into()))?;
    // A million lines take a tenth of a second, which no other task should wait for.
    let parsed = tokio::task::spawn_blocking(move || SanctionsFile::parse(&bytes)).await;
    let parsed = parsed.map_err(|error| failed(io::Error::other(error).into()))?;
    parsed.map_err(|error| failed(error.into()))
}
