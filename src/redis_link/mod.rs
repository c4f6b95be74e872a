//! A connection to Redis that is up or down, for those to whom Redis is an accelerator.
//!
//! While it is down nobody waits for it: every question fails at once, until somebody who has the time
//! for it connects again. What an answer is worth is not decided here.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::float_arithmetic
    )
)]

mod error;

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, FromRedisValue, Pipeline, aio::MultiplexedConnection};
use secrecy::{ExposeSecret, SecretString};

use crate::telemetry::causes;

pub use error::RedisError;

/// How long connecting may take, with everything that is asked at first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// In one word, for metrics and logs.
    pub name: &'static str,
    /// What happens while Redis is away, for the log.
    pub otherwise: &'static str,
}

/// One connection, which all share whose questions it carries: what is asked at the same time travels
/// together.
#[derive(Debug)]
pub struct RedisLink {
    client: Client,
    purpose: Purpose,
    state: RwLock<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing was tried yet.
    New,
    Up(MultiplexedConnection),
    /// Only [`RedisLink::open`] tries again; until then nobody waits for Redis.
    Down,
}

impl RedisLink {
    /// Reads the URL; connects to nothing.
    ///
    /// # Errors
    /// When it is none. The error does not repeat it, because it may hold a password.
    pub fn new(url: &SecretString, purpose: Purpose) -> Result<Self, RedisError> {
        let client = Client::open(url.expose_secret()).map_err(|_| RedisError::Url)?;
        Ok(Self { client, purpose, state: RwLock::new(State::New) })
    }

    /// Which of the server's numbered databases is used.
    pub fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// Whether Redis is asked at all at the moment.
    pub fn is_up(&self) -> bool {
        self.connection().is_some()
    }

    /// Connects, and asks for the first time, which must be answered as fast as later questions. The
    /// link is as it was; [`RedisLink::take`] makes this its connection.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub async fn open<T: FromRedisValue>(
        &self,
        trial: &Pipeline,
        patience: Duration,
    ) -> Result<(MultiplexedConnection, T), RedisError> {
        // The limits of single calls are set where they are made.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let connected = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = within("connect to Redis", CONNECT_TIMEOUT, connected).await?;
        let asked = trial.query_async(&mut connection);
        let answer = within("try Redis", patience, asked).await?;
        Ok((connection, answer))
    }

    /// Goes up with that connection.
    pub fn take(&self, connection: MultiplexedConnection) {
        self.set(State::Up(connection));
    }

    /// Asks, and goes down if there is no answer in time.
    ///
    /// # Errors
    /// When Redis is away or does not answer in time. What was asked for may have been done
    /// nevertheless.
    pub async fn ask<T: FromRedisValue>(
        &self,
        operation: &'static str,
        patience: Duration,
        pipeline: &Pipeline,
    ) -> Result<T, RedisError> {
        let Some(mut connection) = self.connection() else { return Err(RedisError::Away) };
        let answer = within(operation, patience, pipeline.query_async(&mut connection)).await;
        answer.inspect_err(|error| self.lose(error))
    }

    /// Goes down.
    pub fn lose(&self, error: &RedisError) {
        let Purpose { name, otherwise } = self.purpose;
        metrics::counter!("quittance_redis_errors_total", "for" => name).increment(1);
        if matches!(self.set(State::Down), State::New | State::Up(_)) {
            let error = causes(error);
            tracing::warn!(redis.purpose = name, error, "Redis is not used; {otherwise}");
        }
    }

    fn connection(&self) -> Option<MultiplexedConnection> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Up(connection) => Some(connection.clone()),
            State::New | State::Down => None,
        }
    }

    /// Replaces the state, and returns what it was.
    fn set(&self, state: State) -> State {
        let is_up = matches!(state, State::Up(_));
        metrics::gauge!("quittance_redis_up", "for" => self.purpose.name).set(u8::from(is_up));
        let mut current = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *current, state);
        if is_up && !matches!(former, State::Up(_)) {
            tracing::info!(redis.purpose = self.purpose.name, "Redis answers");
        }
        former
    }
}

async fn within<T>(
    operation: &'static str,
    patience: Duration,
    call: impl Future<Output = Result<T, redis::RedisError>>,
) -> Result<T, RedisError> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => answer.map_err(|source| RedisError::Call { operation, source }),
        Err(_) => Err(RedisError::Slow { operation, patience }),
    }
}
