//! Which accounts may have a policy, known without asking the database for each.
//!
//! Most payers have none, and a verification must not cost a query to learn that. Every process keeps a
//! Bloom filter of the accounts that ever registered anything, at most a second behind. It never misses one;
//! where it errs, the database is asked for nothing. Its size is fixed, however many register: a hundred
//! thousand make it err once in 200,000 times, a million once in fifty.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::{sync::Mutex, time::Instant};

use crate::db::{DbError, During};

use super::{Subject, store::registered_after};

/// How old what is known may be before one of those who ask looks for news.
const NEWS_INTERVAL: Duration = Duration::from_millis(400);
/// How old it may be at most: then everybody waits for the news.
const AGE_MAX: Duration = Duration::from_millis(800);
/// The size, in words of 64 bits: one MiB.
const N_WORDS: usize = 1 << 17;
/// How many bits stand for an account.
const N_BITS_EACH: u64 = 4;
/// How many accounts are read at a time.
const N_AT_ONCE: i64 = 10_000;

/// The accounts that ever registered anything. One per process.
#[derive(Debug)]
pub struct KnownAccounts {
    pool: PgPool,
    filter: Filter,
    seen_at: RwLock<Option<Instant>>,
    /// The last change that is in the filter. Held by whoever looks for news.
    last_change: Mutex<i64>,
}

impl KnownAccounts {
    /// Those in that database. Nothing is read yet.
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            filter: Filter::default(),
            seen_at: RwLock::new(None),
            last_change: Mutex::new(0),
        }
    }

    /// Whether the account may have something in force. No is certain but for what was registered within
    /// the last second.
    pub async fn may_have(&self, subject: Subject) -> Result<bool, DbError> {
        let age = self.age();
        if age.is_none_or(|age| age > AGE_MAX) {
            let last_change = self.last_change.lock().await;
            // Somebody else may have looked meanwhile.
            if self.age().is_none_or(|age| age > AGE_MAX) {
                self.look(last_change).await?;
            }
        } else if age.is_none_or(|age| age > NEWS_INTERVAL)
            && let Ok(last_change) = self.last_change.try_lock()
        {
            self.look(last_change).await?;
        }
        Ok(self.filter.may_have(subject))
    }

    fn age(&self) -> Option<Duration> {
        let seen_at = *self.seen_at.read().unwrap_or_else(PoisonError::into_inner);
        seen_at.map(|seen_at| seen_at.elapsed())
    }

    async fn look(&self, mut last_change: tokio::sync::MutexGuard<'_, i64>) -> Result<(), DbError> {
        let began_at = Instant::now();
        let operation = "read which accounts have spending policies";
        let mut conn = self.pool.acquire().await.during(operation)?;
        loop {
            let news = registered_after(&mut conn, *last_change, N_AT_ONCE).await?;
            for (change_id, subject) in &news {
                self.filter.add(*subject);
                *last_change = *change_id;
            }
            if i64::try_from(news.len()).is_ok_and(|n| n < N_AT_ONCE) {
                break;
            }
        }
        *self.seen_at.write().unwrap_or_else(PoisonError::into_inner) = Some(began_at);
        Ok(())
    }
}

/// Its bits are only ever set.
#[derive(Debug)]
struct Filter {
    words: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Filter {
    fn default() -> Self {
        let words = (0..N_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words, hasher: RandomState::new() }
    }
}

impl Filter {
    fn add(&self, subject: Subject) {
        for (word, bit) in self.places(subject) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn may_have(&self, subject: Subject) -> bool {
        self.places(subject).all(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Where the bits of an account are. The hash is keyed anew by each process: nobody can make accounts
    /// whose bits fall together.
    fn places(&self, subject: Subject) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let hash = self.hasher.hash_one(subject);
        let step = hash.rotate_right(32) | 1;
        (0..N_BITS_EACH).filter_map(move |n| {
            let bits = hash.wrapping_add(step.wrapping_mul(n));
            let bit = 1_u64.wrapping_shl(u32::try_from(bits & 63).ok()?);
            let index = usize::try_from(bits.wrapping_shr(6)).ok()?.checked_rem(N_WORDS)?;
            Some((self.words.get(index)?, bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, U160};

    use super::{Filter, Subject};

    #[test]
    fn it_misses_nobody_and_errs_as_seldom_as_it_says() {
        let nth = |n: u64| Subject {
            chain_id: "eip155:8453".parse().unwrap(),
            account: Address::from(U160::from(n)),
            asset: Address::ZERO,
        };
        let filter = Filter::default();
        let n_known = 100_000;
        (0..n_known).for_each(|n| filter.add(nth(n)));
        assert!((0..n_known).all(|n| filter.may_have(nth(n))));
        let n_wrong = (n_known..2 * n_known).filter(|n| filter.may_have(nth(*n))).count();
        // One in 200,000 is expected: more than twenty would be another filter.
        assert!(n_wrong < 20, "{n_wrong}");
        // The same account with another asset is another one.
        let mut elsewhere = nth(1);
        elsewhere.asset = Address::repeat_byte(9);
        assert!(!filter.may_have(elsewhere));
    }
}
