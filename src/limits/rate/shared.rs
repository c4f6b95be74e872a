//! Rates that all processes with the same Redis count together.

use std::{sync::OnceLock, time::Duration};

use secrecy::SecretString;

use crate::{
    domain::Rate,
    redis_link::{Purpose, RedisError, RedisLink},
};

use super::process::Taken;

/// One call, one step. The clock is that of Redis, which all processes share.
pub(super) const SCRIPT: &str = include_str!("gcra.lua");

/// How long a request waits for Redis, once: then the process counts until Redis answers again. Longer
/// than a busy machine keeps an answer lying, because a limit that is not shared is less of a limit.
const TIMEOUT: Duration = Duration::from_millis(250);

const PURPOSE: Purpose =
    Purpose { name: "limits", otherwise: "each process holds its merchants to the whole limit" };

#[derive(Debug)]
pub(super) struct Shared {
    link: RedisLink,
    /// How Redis calls the script.
    digest: OnceLock<String>,
}

impl Shared {
    pub(super) fn new(url: &SecretString) -> Result<Self, RedisError> {
        Ok(Self { link: RedisLink::new(url, PURPOSE)?, digest: OnceLock::new() })
    }

    /// Connects, if there is no connection.
    pub(super) async fn connect(&self) {
        if self.link.is_up() {
            return;
        }
        let mut trial = redis::pipe();
        trial.cmd("script").arg("load").arg(SCRIPT);
        match self.link.open::<(String,)>(&trial, TIMEOUT).await {
            Ok((connection, (digest,))) => {
                // The same at every server.
                let _ = self.digest.set(digest);
                self.link.take(connection);
            }
            Err(error) => self.link.lose(&error),
        }
    }

    /// Takes one of what `key` names. `None` while Redis does not answer.
    pub(super) async fn take(&self, key: &str, rate: Rate) -> Option<Taken> {
        let digest = self.digest.get()?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("evalsha").arg(digest).arg(1).arg(key);
        pipeline.arg(rate.per_second()).arg(rate.burst());
        let asked = self.link.ask::<((bool, u32, u64),)>("count a request", TIMEOUT, &pipeline);
        let ((passes, left, wait_micros),) = asked.await.ok()?;
        // There is room after an interval at the latest, whatever was answered.
        let wait = Duration::from_micros(wait_micros).min(rate.interval());
        Some(if passes { Ok(left) } else { Err(wait) })
    }
}
