//! What one merchant asks in one class.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::Rate;

use super::process::{Counted, Taken};

/// A seat among those requests of a merchant that are under way; dropping it gives it back.
#[derive(Debug)]
pub struct Seat(#[allow(dead_code, reason = "it is held")] OwnedSemaphorePermit);

#[derive(Debug)]
pub(super) struct Meter {
    /// How Redis calls it.
    pub(super) key: String,
    rate: Rate,
    counted: Counted,
    seats: Arc<Semaphore>,
    began_at: Instant,
    /// Until when Redis said that there is no room, in microseconds since then.
    closed_until_micros: AtomicU64,
}

impl Meter {
    pub(super) fn new(key: String, rate: Rate, n_at_once_max: u32) -> Self {
        let n_seats = usize::try_from(n_at_once_max).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            key,
            rate,
            counted: Counted::new(rate),
            seats: Arc::new(Semaphore::new(n_seats.min(Semaphore::MAX_PERMITS))),
            began_at: Instant::now(),
            closed_until_micros: AtomicU64::new(0),
        }
    }

    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    /// Counts by this process alone.
    pub(super) fn take(&self) -> Taken {
        self.counted.take()
    }

    /// Notes what Redis said. What passed is counted here too: this process goes on from there when
    /// Redis is away.
    pub(super) fn note(&self, told: Taken) {
        match told {
            Ok(_) => drop(self.counted.take()),
            Err(wait) => {
                let until = self.micros().saturating_add(micros(wait));
                self.closed_until_micros.fetch_max(until, Ordering::Relaxed);
            }
        }
    }

    /// How long Redis would still refuse, by what it said last.
    ///
    /// When it refuses, it says when there is room, if nobody takes anything meanwhile. What others take
    /// makes that later and nothing makes it earlier, but a clock of Redis that is set; so it need not be
    /// asked before. Asking the process's own limiter instead would be wrong: what passes there and is
    /// refused by Redis is lost to the merchant, and a little of every busy moment is.
    pub(super) fn closed_for(&self) -> Option<Duration> {
        let until = self.closed_until_micros.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let left = until.saturating_sub(self.micros());
        (left > 0).then(|| Duration::from_micros(left))
    }

    /// A seat, if one is free.
    pub(super) fn enter(&self) -> Option<Seat> {
        Arc::clone(&self.seats).try_acquire_owned().ok().map(Seat)
    }

    fn micros(&self) -> u64 {
        micros(self.began_at.elapsed())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
