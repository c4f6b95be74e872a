//! What Redis says of promises: which payers may have promised something.
//!
//! A payer of an asset is *marked* when a payment of it is claimed, for as long as the authorization can
//! count. A mark says "perhaps"; its absence says "nothing", if no mark was lost. Whether one was, Redis
//! tells itself: a key with the name of a generation is there for as long as nothing was deleted, and the
//! server's identity changes with everything else that loses data. What to make of that is decided in
//! `facilitator`; nothing here decides about a payment, and no answer here is ever needed.

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
mod server;

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use alloy::primitives::Address;
use redis::{
    AsyncConnectionConfig, Client, ExistenceCheck, FromRedisValue, Pipeline, SetExpiry, SetOptions,
    aio::MultiplexedConnection,
};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::{domain::ChainId, telemetry::causes};

pub use error::RedisError;
pub use server::Server;

/// How long a verification waits for Redis, once: then it does without until Redis answers again.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a claim waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long connecting may take, with everything that is asked at first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest life of a mark: authorizations may be valid for ever, Redis counts in 64 bits.
const LIFETIME_SECONDS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

/// Written and read when a connection is made.
const TRIAL_KEY: &str = "quittance:trial";

/// A payer of an asset on some chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account {
    /// The token.
    pub asset: Address,
    /// Who signs.
    pub payer: Address,
}

/// What Redis said of some accounts, all at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Who said it.
    pub server: Server,
    /// Whether the generation that was asked about began there, and nothing was deleted since.
    pub has_generation: bool,
    /// Whether each account is marked, in the order in which they were asked about.
    pub marked: Vec<bool>,
}

/// The marks in Redis, and the connection to them.
#[derive(Debug)]
pub struct Marks {
    client: Client,
    link: RwLock<Link>,
}

#[derive(Debug)]
enum Link {
    /// Nothing was tried yet.
    New,
    Up(MultiplexedConnection),
    /// Only [`Marks::connect`] tries again; until then nobody waits for Redis.
    Down,
}

impl Marks {
    /// Reads the URL; connects to nothing.
    ///
    /// # Errors
    /// When it is none. The error does not repeat it, because it may hold a password.
    pub fn new(url: &SecretString) -> Result<Self, RedisError> {
        let client = Client::open(url.expose_secret()).map_err(|_| RedisError::Url)?;
        Ok(Self { client, link: RwLock::new(Link::New) })
    }

    /// Whether Redis is asked at all at the moment.
    pub fn is_connected(&self) -> bool {
        self.link().is_some()
    }

    /// Connects, if there is no connection.
    ///
    /// # Errors
    /// When nobody answers, or a server that could lose marks without a trace.
    pub async fn connect(&self) -> Result<(), RedisError> {
        if !self.is_connected() {
            let (link, _) = self.open().await.inspect_err(|error| self.lose(error))?;
            self.set(Link::Up(link));
        }
        Ok(())
    }

    /// Connects anew, says who answers, and leaves the connection.
    ///
    /// # Errors
    /// As [`Marks::connect`].
    pub async fn examine(&self) -> Result<Server, RedisError> {
        self.open().await.map(|(_, server)| server)
    }

    /// Which of `accounts` may have promised something, and whether the others certainly have not.
    ///
    /// # Errors
    /// When Redis is away or does not answer in time.
    pub async fn look(
        &self,
        chain_id: ChainId,
        generation: Uuid,
        accounts: &[Account],
    ) -> Result<Look, RedisError> {
        let keys: Vec<String> = accounts.iter().map(|account| mark(chain_id, account)).collect();
        let mut pipeline = redis::pipe();
        // At one moment: a mark that is absent because everything was just deleted is no answer.
        pipeline.atomic();
        server::ask(&mut pipeline);
        pipeline.exists(generation_key(generation)).mget(&keys);
        let (info, has_generation, marks): (String, bool, Vec<Option<String>>) =
            self.ask("look for marks", READ_TIMEOUT, &pipeline).await?;
        let server = self.identify(&info)?;
        let marked: Vec<bool> = marks.iter().map(Option::is_some).collect();
        if marked.len() != accounts.len() {
            return Err(RedisError::Unreadable("marks"));
        }
        Ok(Look { server, has_generation, marked })
    }

    /// Who answers, and whether a generation began there and nothing was deleted since.
    ///
    /// # Errors
    /// When Redis is away or does not answer in time.
    pub async fn holds(&self, generation: Uuid) -> Result<(Server, bool), RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        server::ask(&mut pipeline);
        pipeline.exists(generation_key(generation));
        let (info, has_generation): (String, bool) =
            self.ask("look for a generation of marks", WRITE_TIMEOUT, &pipeline).await?;
        Ok((self.identify(&info)?, has_generation))
    }

    /// Marks accounts, each for so many seconds at least, and says where.
    ///
    /// # Errors
    /// When Redis is away or does not answer in time. The marks may have been made nevertheless.
    pub async fn mark(
        &self,
        chain_id: ChainId,
        accounts: &[(Account, u64)],
    ) -> Result<Server, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        server::ask(&mut pipeline);
        for (account, seconds) in accounts {
            mark_for(&mut pipeline, &mark(chain_id, account), *seconds);
        }
        let (info,): (String,) = self.ask("mark payers", WRITE_TIMEOUT, &pipeline).await?;
        self.identify(&info)
    }

    /// Begins a generation in the place of `former`, and says where.
    ///
    /// # Errors
    /// When Redis is away or does not answer in time. The generation may have begun nevertheless.
    pub async fn begin(
        &self,
        generation: Uuid,
        former: Option<Uuid>,
    ) -> Result<Server, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        server::ask(&mut pipeline);
        pipeline.set(generation_key(generation), "1").ignore();
        if let Some(former) = former {
            pipeline.del(generation_key(former)).ignore();
        }
        let (info,): (String,) =
            self.ask("begin a generation of marks", WRITE_TIMEOUT, &pipeline).await?;
        self.identify(&info)
    }

    async fn ask<T: FromRedisValue>(
        &self,
        operation: &'static str,
        patience: Duration,
        pipeline: &Pipeline,
    ) -> Result<T, RedisError> {
        let Some(mut link) = self.link() else { return Err(RedisError::Away) };
        let answer = within(operation, patience, pipeline.query_async(&mut link)).await;
        answer.inspect_err(|error| self.lose(error))
    }

    fn identify(&self, info: &str) -> Result<Server, RedisError> {
        self.server(info).inspect_err(|error| self.lose(error))
    }

    async fn open(&self) -> Result<(MultiplexedConnection, Server), RedisError> {
        // The limits of single calls are set where they are made.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let connected = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut link = within("connect to Redis", CONNECT_TIMEOUT, connected).await?;
        // All that will be asked, and as fast: a server that cannot answer it is not used at all.
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        server::ask(&mut pipeline);
        mark_for(&mut pipeline, TRIAL_KEY, 1);
        pipeline.exists(TRIAL_KEY).mget(&[TRIAL_KEY]);
        let asked = pipeline.query_async(&mut link);
        let (info, _, _): (String, bool, Vec<Option<String>>) =
            within("try Redis", READ_TIMEOUT, asked).await?;
        Ok((link, self.server(&info)?))
    }

    fn server(&self, info: &str) -> Result<Server, RedisError> {
        Server::parse(info, self.client.get_connection_info().redis_settings().db())
    }

    fn link(&self) -> Option<MultiplexedConnection> {
        match &*self.link.read().unwrap_or_else(PoisonError::into_inner) {
            Link::Up(link) => Some(link.clone()),
            Link::New | Link::Down => None,
        }
    }

    fn lose(&self, error: &RedisError) {
        metrics::counter!("quittance_redis_errors_total").increment(1);
        if matches!(self.set(Link::Down), Link::New | Link::Up(_)) {
            let error = causes(error);
            tracing::warn!(error, "Redis is not used; Postgres tells what is promised");
        }
    }

    /// Replaces the connection, and returns what was there.
    fn set(&self, link: Link) -> Link {
        let is_up = matches!(link, Link::Up(_));
        metrics::gauge!("quittance_redis_up").set(u8::from(is_up));
        let mut current = self.link.write().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *current, link);
        if is_up && !matches!(former, Link::Up(_)) {
            tracing::info!("Redis answers");
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

fn mark_for(pipeline: &mut Pipeline, key: &str, seconds: u64) {
    let seconds = seconds.clamp(1, LIFETIME_SECONDS_MAX);
    let if_absent = SetOptions::default()
        .conditional_set(ExistenceCheck::NX)
        .with_expiration(SetExpiry::EX(seconds));
    pipeline.set_options(key, "1", if_absent).ignore();
    // For longer, never for shorter.
    pipeline.cmd("expire").arg(key).arg(seconds).arg("gt").ignore();
}

fn mark(chain_id: ChainId, account: &Account) -> String {
    let Account { asset, payer } = account;
    format!("quittance:promised:{chain_id}:{asset:#x}:{payer:#x}")
}

fn generation_key(generation: Uuid) -> String {
    format!("quittance:generation:{generation}")
}
