//! How much at a time: rates of merchants and of addresses, and how many requests of a merchant are
//! under way.
//!
//! A merchant's rate is counted in Redis, if there is one, so that all processes share it; otherwise, and
//! while Redis is away, each process counts what it sees itself. How many are under way is counted by
//! each process, because what it protects are the queues of a process. Nothing here knows a payment or a
//! key, and nothing here is ever a verdict.
//!
//! ```text
//! address ── merchant's rate in its class ── merchant's seat in its class
//! ```

mod meter;
mod process;
mod shared;

use std::{net::IpAddr, sync::Arc, sync::LazyLock, time::Duration};

use metrics::Counter;
use moka::{policy::EvictionPolicy, sync::Cache};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{MerchantId, OwnRates, Rate, RateClass, WINDOW_MAX},
    redis_link::RedisError,
};

use meter::Meter;
use process::Counted;
use shared::Shared;

pub use meter::Seat;

/// One step of the shared limiter, for tests that set its clock.
#[doc(hidden)]
pub const RATE_SCRIPT: &str = shared::SCRIPT;

/// How many merchants and classes are counted at a time; about 300 bytes each.
const N_METERS_MAX: u64 = 100_000;
/// How many addresses are counted at a time; about 200 bytes each.
const N_ADDRESSES_MAX: u64 = 100_000;
/// How often a lost Redis is tried.
const CONNECT_INTERVAL: Duration = Duration::from_millis(500);
/// When to come back if all seats are taken: one is free as soon as an answer is sent.
const WAIT_FOR_SEAT: Duration = Duration::from_secs(1);

/// Looked up once: every request is counted by one of them.
static N_BY_REDIS: LazyLock<Counter> =
    LazyLock::new(|| metrics::counter!("quittance_rate_limits_total", "by" => "redis"));
static N_BY_PROCESS: LazyLock<Counter> =
    LazyLock::new(|| metrics::counter!("quittance_rate_limits_total", "by" => "process"));

/// What each merchant may ask in one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassLimit {
    /// How often, unless it has a rate of its own.
    pub rate: Rate,
    /// How many of its requests may be under way in a process.
    pub n_at_once_max: u32,
}

/// The limits of the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Of `/verify`.
    pub verify: ClassLimit,
    /// Of `/settle`.
    pub settle: ClassLimit,
    /// Of everything else that needs a key.
    pub read: ClassLimit,
    /// Of an address, whoever asks from there and whatever it asks.
    pub address: Rate,
}

impl RateLimits {
    /// The rate of a merchant in one class: its own, or that of the house.
    pub fn rate(&self, own: &OwnRates, class: RateClass) -> Rate {
        own.of(class).unwrap_or(self.of(class).rate)
    }

    /// The rates of a merchant, as they are told to people and programs.
    pub fn shown(&self, merchant_id: MerchantId, own: &OwnRates) -> Value {
        let of = |class| {
            let (rate, is_own) = (self.rate(own, class), own.of(class).is_some());
            json!({ "perSecond": rate.per_second(), "burst": rate.burst(), "isOwn": is_own })
        };
        json!({
            "merchantId": merchant_id.as_uuid(),
            "verify": of(RateClass::Verify),
            "settle": of(RateClass::Settle),
            "read": of(RateClass::Read),
        })
    }

    const fn of(&self, class: RateClass) -> ClassLimit {
        match class {
            RateClass::Verify => self.verify,
            RateClass::Settle => self.settle,
            RateClass::Read => self.read,
        }
    }
}

/// Too much at a time. Says nothing about what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// From one address.
    #[error("this address may send {} requests a second, and {} at once", .rate.per_second(), .rate.burst())]
    Address {
        /// What it may.
        rate: Rate,
        /// How long until there is room.
        wait: Duration,
    },
    /// Of one merchant, too often.
    #[error("this merchant may ask for {} {} a second, and {} at once", .rate.per_second(), things(*.class), .rate.burst())]
    Often {
        /// In which class.
        class: RateClass,
        /// What it may.
        rate: Rate,
        /// How long until there is room.
        wait: Duration,
    },
    /// Of one merchant, with too many under way.
    #[error("this merchant may have {n_at_once_max} {} under way", things(*.class))]
    AtOnce {
        /// In which class.
        class: RateClass,
        /// How many it may.
        n_at_once_max: u32,
    },
}

const fn things(class: RateClass) -> &'static str {
    match class {
        RateClass::Verify => "verifications",
        RateClass::Settle => "settlements",
        RateClass::Read => "reads",
    }
}

impl TooMuch {
    /// After how long there is room.
    pub const fn wait(&self) -> Duration {
        match self {
            Self::Address { wait, .. } | Self::Often { wait, .. } => *wait,
            Self::AtOnce { .. } => WAIT_FOR_SEAT,
        }
    }

    fn count(self) -> Self {
        let (class, by) = match self {
            Self::Address { .. } => ("any", "address"),
            Self::Often { class, .. } => (class.as_str(), "merchant"),
            Self::AtOnce { class, .. } => (class.as_str(), "concurrency"),
        };
        metrics::counter!("quittance_rate_limited_total", "class" => class, "by" => by)
            .increment(1);
        self
    }
}

/// What a merchant may ask in one class, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The class.
    pub class: RateClass,
    /// How often.
    pub rate: Rate,
    /// How many may be under way.
    pub n_at_once_max: u32,
    /// How many may still be asked now.
    pub n_left: u32,
    /// How long until there is room for one more than that.
    pub more_in: Duration,
}

/// The rates of everybody.
#[derive(Debug)]
pub struct Rates {
    limits: RateLimits,
    /// Known by its limit too: a changed one begins anew.
    meters: Cache<(MerchantId, RateClass, Rate), Arc<Meter>>,
    addresses: Cache<IpAddr, Arc<Counted>>,
    shared: Option<Shared>,
}

impl Rates {
    /// Counts nothing yet, and connects to nothing.
    ///
    /// # Errors
    /// When the URL of Redis is none.
    pub fn new(limits: RateLimits, redis_url: Option<&SecretString>) -> Result<Self, RedisError> {
        Ok(Self {
            limits,
            // What rested for a window is whole again, and as good as new.
            meters: Cache::builder()
                .max_capacity(N_METERS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(WINDOW_MAX)
                .build(),
            // By who was heard last: an address that goes on asking is not forgotten, however many others
            // there are.
            addresses: Cache::builder()
                .max_capacity(N_ADDRESSES_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(WINDOW_MAX)
                .build(),
            shared: redis_url.map(Shared::new).transpose()?,
        })
    }

    /// The limits of the house.
    pub const fn limits(&self) -> &RateLimits {
        &self.limits
    }

    /// Takes one request of an address. Counted by this process, before anything else is done for it.
    ///
    /// # Errors
    /// When it asks too often.
    pub fn admit_address(&self, address: IpAddr) -> Result<(), TooMuch> {
        let rate = self.limits.address;
        let known = self.addresses.get(&address);
        let counted = known
            .unwrap_or_else(|| self.addresses.get_with(address, || Arc::new(Counted::new(rate))));
        let taken = counted.take();
        taken.map(drop).map_err(|wait| TooMuch::Address { rate, wait }.count())
    }

    /// Takes one request of a merchant, and a seat until it is answered.
    ///
    /// # Errors
    /// The second value, when it asks too much at a time.
    pub async fn admit(
        &self,
        merchant_id: MerchantId,
        own: &OwnRates,
        class: RateClass,
    ) -> (Allowance, Result<Seat, TooMuch>) {
        let (meter, n_at_once_max) = self.meter(merchant_id, own, class);
        let rate = meter.rate();
        let taken = self.take(&meter).await;
        let (n_left, more_in) = match taken {
            Ok(n_left) => (n_left, rate.interval()),
            Err(wait) => (0, wait),
        };
        let allowance = Allowance { class, rate, n_at_once_max, n_left, more_in };
        let seat = match taken {
            Ok(_) => meter.enter().ok_or(TooMuch::AtOnce { class, n_at_once_max }),
            Err(wait) => Err(TooMuch::Often { class, rate, wait }),
        };
        (allowance, seat.map_err(TooMuch::count))
    }

    /// Keeps the connection to Redis, if there is to be one, until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let Some(shared) = &self.shared else { return stop.cancelled().await };
        let connect = async {
            loop {
                shared.connect().await;
                tokio::time::sleep(CONNECT_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(connect).await;
    }

    async fn take(&self, meter: &Meter) -> process::Taken {
        if let Some(shared) = &self.shared {
            if let Some(wait) = meter.closed_for() {
                N_BY_REDIS.increment(1);
                return Err(wait);
            }
            if let Some(told) = shared.take(&meter.key, meter.rate()).await {
                N_BY_REDIS.increment(1);
                meter.note(told);
                return told;
            }
        }
        N_BY_PROCESS.increment(1);
        meter.take()
    }

    fn meter(
        &self,
        merchant_id: MerchantId,
        own: &OwnRates,
        class: RateClass,
    ) -> (Arc<Meter>, u32) {
        let n_at_once_max = self.limits.of(class).n_at_once_max;
        let rate = self.limits.rate(own, class);
        let key = (merchant_id, class, rate);
        let known = self.meters.get(&key);
        let meter = known.unwrap_or_else(|| {
            self.meters.get_with(key, || {
                let name = format!("quittance:rate:{merchant_id}:{}:{rate}", class.as_str());
                Arc::new(Meter::new(name, rate, n_at_once_max))
            })
        });
        (meter, n_at_once_max)
    }
}
