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

mod server;

use std::time::Duration;

use alloy::primitives::Address;
use redis::{ExistenceCheck, Pipeline, SetExpiry, SetOptions, aio::MultiplexedConnection};
use secrecy::SecretString;
use uuid::Uuid;

use crate::{
    domain::ChainId,
    redis_link::{Purpose, RedisLink},
};

pub use crate::redis_link::RedisError;
pub use server::Server;

/// How long a verification waits for Redis, once: then it does without until Redis answers again.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a claim waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_millis(250);
/// The longest life of a mark: authorizations may be valid for ever, Redis counts in 64 bits.
const LIFETIME_SECONDS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

const PURPOSE: Purpose = Purpose { name: "promises", otherwise: "Postgres tells what is promised" };

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
    link: RedisLink,
}

impl Marks {
    /// Reads the URL; connects to nothing.
    ///
    /// # Errors
    /// When it is none. The error does not repeat it, because it may hold a password.
    pub fn new(url: &SecretString) -> Result<Self, RedisError> {
        Ok(Self { link: RedisLink::new(url, PURPOSE)? })
    }

    /// Whether Redis is asked at all at the moment.
    pub fn is_connected(&self) -> bool {
        self.link.is_up()
    }

    /// Connects, if there is no connection.
    ///
    /// # Errors
    /// When nobody answers, or a server that could lose marks without a trace.
    pub async fn connect(&self) -> Result<(), RedisError> {
        if !self.is_connected() {
            let opened = self.open().await;
            let (connection, _) = opened.inspect_err(|error| self.link.lose(error))?;
            self.link.take(connection);
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
            self.link.ask("look for marks", READ_TIMEOUT, &pipeline).await?;
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
            self.link.ask("look for a generation of marks", WRITE_TIMEOUT, &pipeline).await?;
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
        let (info,): (String,) = self.link.ask("mark payers", WRITE_TIMEOUT, &pipeline).await?;
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
            self.link.ask("begin a generation of marks", WRITE_TIMEOUT, &pipeline).await?;
        self.identify(&info)
    }

    fn identify(&self, info: &str) -> Result<Server, RedisError> {
        self.server(info).inspect_err(|error| self.link.lose(error))
    }

    async fn open(&self) -> Result<(MultiplexedConnection, Server), RedisError> {
        // All that will be asked, and as fast: a server that cannot answer it is not used at all.
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        server::ask(&mut pipeline);
        mark_for(&mut pipeline, TRIAL_KEY, 1);
        pipeline.exists(TRIAL_KEY).mget(&[TRIAL_KEY]);
        let (connection, (info, _, _)) =
            self.link.open::<(String, bool, Vec<Option<String>>)>(&pipeline, READ_TIMEOUT).await?;
        Ok((connection, self.server(&info)?))
    }

    fn server(&self, info: &str) -> Result<Server, RedisError> {
        Server::parse(info, self.link.database())
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
