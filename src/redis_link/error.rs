//! What keeps Redis from being used. Nothing that a caller of ours would see.

use std::time::Duration;

/// Redis trouble. Something else answers instead.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The setting is no URL of a Redis server.
    #[error(
        "redis.url is not a URL such as redis://host:6379 or rediss://user:password@host:6379/0"
    )]
    Url,
    /// It did not answer before, and has not been reached since.
    #[error("there is no connection to Redis")]
    Away,
    /// A call failed.
    #[error("{operation}")]
    Call {
        /// What was tried, in words.
        operation: &'static str,
        /// What the driver or the server said.
        #[source]
        source: redis::RedisError,
    },
    /// A call took too long.
    #[error("{operation}: no answer within {} ms", patience.as_millis())]
    Slow {
        /// What was tried, in words.
        operation: &'static str,
        /// For how long.
        patience: Duration,
    },
    /// The server would forget marks when its memory is full.
    #[error("maxmemory-policy is {0}, and must be noeviction")]
    Evicts(String),
    /// An answer is not what Redis 7 says.
    #[error("Redis does not tell its {0}; version 7 or newer does")]
    Unreadable(&'static str),
}
