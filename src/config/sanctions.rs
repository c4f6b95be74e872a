//! Settings of the sanctions file.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

/// Where the list of those who are sanctioned is, and how it is watched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SanctionsSettings {
    /// The file. Without it, payments are held against none.
    pub path: Option<PathBuf>,
    /// How old the list may be before people are told, in hours.
    pub age_max_hours: u64,
    /// How often the file is looked at, in seconds.
    pub poll_seconds: u64,
    /// Whether payments are refused an answer while the list is older than that.
    pub fail_when_stale: bool,
}

impl Default for SanctionsSettings {
    fn default() -> Self {
        Self { path: None, age_max_hours: 48, poll_seconds: 5, fail_when_stale: false }
    }
}

impl SanctionsSettings {
    /// How old the list may be.
    pub const fn age_max(&self) -> Duration {
        Duration::from_secs(self.age_max_hours.saturating_mul(3_600))
    }

    /// How often the file is looked at.
    pub const fn poll_interval(&self) -> Duration {
        Duration::from_secs(self.poll_seconds)
    }
}
