//! Points in time, as contracts count them.

use std::{fmt, time::Duration};

use alloy::primitives::U256;

/// Whole seconds since 1970-01-01 UTC: the unit of block timestamps and of EIP-3009.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The moment that many seconds after the epoch.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since the epoch.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// Seconds since the epoch, as a contract's argument.
    pub fn as_u256(self) -> U256 {
        U256::from(self.0)
    }

    /// This moment moved into the future, stopping at the largest representable one.
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
