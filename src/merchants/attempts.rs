//! How often an address has presented a key that nobody holds.
//!
//! A generic cell rate for each address, counted in failures only: whoever holds a good key never spends
//! anything. It runs on a monotonic clock.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many addresses are remembered. Whoever commands more is not held by a limit for each, and the book
/// begins anew.
const N_ADDRESSES_MAX: usize = 100_000;

/// The failures of every address.
#[derive(Debug)]
pub(super) struct Attempts {
    /// What one failure costs.
    interval: Duration,
    /// How far ahead of now an address may be before a further attempt.
    tolerance: Duration,
    /// Until when each address has paid for its failures.
    paid_until: Mutex<HashMap<IpAddr, Instant>>,
}

impl Attempts {
    /// `burst` failures at once, and then so many a minute.
    pub(super) fn new(per_minute: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(60) / per_minute.max(1);
        let tolerance = interval * burst.saturating_sub(1);
        Self { interval, tolerance, paid_until: Mutex::default() }
    }

    /// How long the address must wait before its next attempt; `None` if it need not.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = paid_until.get(&address)?.saturating_duration_since(now);
        let wait = ahead.saturating_sub(self.tolerance);
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts a failure. Those that come at the same time all count, up to a full burst.
    pub(super) fn count(&self, address: IpAddr, now: Instant) {
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        if paid_until.len() >= N_ADDRESSES_MAX && !paid_until.contains_key(&address) {
            paid_until.retain(|_, until| *until > now);
            if paid_until.len() >= N_ADDRESSES_MAX {
                paid_until.clear();
            }
        }
        let until = paid_until.entry(address).or_insert(now);
        *until = ((*until).max(now) + self.interval).min(now + self.tolerance + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        time::{Duration, Instant},
    };

    use super::{Attempts, N_ADDRESSES_MAX};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

    #[test]
    fn an_address_fails_so_often_at_once_and_then_at_its_rate() {
        let (attempts, start) = (Attempts::new(10, 10), Instant::now());
        for n in 0..10 {
            assert_eq!(attempts.wait(HERE, start), None, "after {n} failures");
            attempts.count(HERE, start);
        }
        for _ in 0..100 {
            assert_eq!(attempts.wait(HERE, start), Some(Duration::from_secs(6)));
            // As those do that were under way together.
            attempts.count(HERE, start);
        }
        assert_eq!(attempts.wait(THERE, start), None, "another address");
        let just_before = start + Duration::from_millis(5_999);
        assert_eq!(attempts.wait(HERE, just_before), Some(Duration::from_millis(1)));
        let next = start + Duration::from_secs(6);
        assert_eq!(attempts.wait(HERE, next), None);
        attempts.count(HERE, next);
        assert_eq!(attempts.wait(HERE, next), Some(Duration::from_secs(6)));
        let rested = next + Duration::from_secs(60);
        for _ in 0..10 {
            assert_eq!(attempts.wait(HERE, rested), None);
            attempts.count(HERE, rested);
        }
        assert!(attempts.wait(HERE, rested).is_some());
    }

    #[test]
    fn the_book_of_addresses_is_bounded() {
        let (attempts, now) = (Attempts::new(10, 1), Instant::now());
        let nth = |n: usize| IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(n).unwrap()));
        for n in 0..N_ADDRESSES_MAX {
            attempts.count(nth(n), now);
        }
        assert!(attempts.wait(nth(0), now).is_some());
        // Those who have paid are forgotten first.
        let later = now + Duration::from_secs(6);
        attempts.count(nth(1), later);
        attempts.count(nth(N_ADDRESSES_MAX), later);
        assert!(attempts.wait(nth(1), later).is_some());
        assert!(attempts.paid_until.lock().unwrap().len() <= N_ADDRESSES_MAX);
    }
}
