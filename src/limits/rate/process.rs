//! Rates that this process counts by itself, by a clock that nobody can set.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::domain::Rate;

/// How many are left after this one; or how long until there is room for one.
pub(super) type Taken = Result<u32, Duration>;

/// One rate of somebody's (GCRA).
#[derive(Debug)]
pub(super) struct Counted {
    clock: MonotonicClock,
    limiter: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, StateInformationMiddleware>,
}

impl Counted {
    pub(super) fn new(rate: Rate) -> Self {
        let clock = MonotonicClock;
        let burst = NonZeroU32::new(rate.burst()).expect("a burst is at least one");
        let quota = Quota::with_period(rate.interval()).expect("an interval is not zero");
        let limiter = RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone());
        Self { clock, limiter: limiter.with_middleware() }
    }

    pub(super) fn take(&self) -> Taken {
        match self.limiter.check() {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(refused) => Err(refused.wait_time_from(self.clock.now())),
        }
    }
}
