//! How much is taken at a time.

use serde::Deserialize;

use crate::domain::{Rate, RateError};

use super::{ConfigError, invalid};

/// The most requests of a merchant that may be under way: what a process has places for.
const UNDER_WAY_MAX: u32 = 10_000;
/// The most attempts that can be allowed: a thousand a second.
const ATTEMPTS_MAX: u32 = 60_000;

/// How much is taken at a time, of each merchant and from each address.
///
/// One merchant alone cannot have a verification of somebody else turned away: a line begins to do that
/// when 1,600 are unfinished (800 in eight calls, 800 waiting), and 500 verifications and 1,000
/// settlements are fewer. The settlements take a tenth of the places for those who wait for outcomes,
/// and the reads half of the connections to Postgres.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// How many verifications a second.
    pub verify_per_second: u32,
    /// How many at once.
    pub verify_burst: u32,
    /// How many may be under way in a process.
    pub verify_under_way_max: u32,
    /// How many settlements a second.
    pub settle_per_second: u32,
    /// How many at once.
    pub settle_burst: u32,
    /// How many may be under way in a process.
    pub settle_under_way_max: u32,
    /// How many other requests with a merchant's key a second.
    pub read_per_second: u32,
    /// How many at once.
    pub read_burst: u32,
    /// How many may be under way in a process.
    pub read_under_way_max: u32,
    /// How many requests an address may send a second, with or without a key.
    pub address_per_second: u32,
    /// How many at once.
    pub address_burst: u32,
    /// How often an address may present keys that nobody holds, once its burst is spent.
    pub failed_attempts_per_minute: u32,
    /// How often at once.
    pub failed_attempts_burst: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            verify_per_second: 2_000,
            verify_burst: 4_000,
            verify_under_way_max: 500,
            settle_per_second: 500,
            settle_burst: 1_000,
            settle_under_way_max: 1_000,
            read_per_second: 100,
            read_burst: 200,
            read_under_way_max: 10,
            address_per_second: 5_000,
            address_burst: 10_000,
            failed_attempts_per_minute: 10,
            failed_attempts_burst: 10,
        }
    }
}

impl LimitSettings {
    /// The rate of verifications.
    pub fn verify(&self) -> Result<Rate, ConfigError> {
        rate("verify", self.verify_per_second, self.verify_burst)
    }

    /// The rate of settlements.
    pub fn settle(&self) -> Result<Rate, ConfigError> {
        rate("settle", self.settle_per_second, self.settle_burst)
    }

    /// The rate of everything else.
    pub fn read(&self) -> Result<Rate, ConfigError> {
        rate("read", self.read_per_second, self.read_burst)
    }

    /// The rate of an address.
    pub fn address(&self) -> Result<Rate, ConfigError> {
        rate("address", self.address_per_second, self.address_burst)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for rate in [self.verify(), self.settle(), self.read(), self.address()] {
            rate?;
        }
        for (key, n, max) in [
            ("verify_under_way_max", self.verify_under_way_max, UNDER_WAY_MAX),
            ("settle_under_way_max", self.settle_under_way_max, UNDER_WAY_MAX),
            ("read_under_way_max", self.read_under_way_max, UNDER_WAY_MAX),
            ("failed_attempts_per_minute", self.failed_attempts_per_minute, ATTEMPTS_MAX),
            ("failed_attempts_burst", self.failed_attempts_burst, ATTEMPTS_MAX),
        ] {
            if !(1..=max).contains(&n) {
                let problem = format!("{n} is not between 1 and {max}");
                return invalid(&format!("limits.{key}"), problem);
            }
        }
        Ok(())
    }
}

fn rate(name: &str, per_second: u32, burst: u32) -> Result<Rate, ConfigError> {
    Rate::new(per_second, burst).or_else(|error| {
        let what = match error {
            RateError::Burst { .. } => "burst",
            RateError::PerSecond(_) | RateError::Malformed(_) => "per_second",
        };
        invalid(&format!("limits.{name}_{what}"), error.to_string())
    })
}
