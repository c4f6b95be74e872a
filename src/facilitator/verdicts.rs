//! The verdicts of the newest block and of the one before it: what was verified is not verified again to
//! be settled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::verify::{PaymentKey, Verified};

/// How many verdicts of one block are kept; a block of Base would have to see 25,000 payments a second.
const N_VERDICTS_MAX: usize = 50_000;
/// How old a verdict may be, whatever its block: this process may not have heard of newer ones.
const AGE_MAX: Duration = Duration::from_secs(2);

/// Verdicts in favour of payments, by block.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<Blocks>);

#[derive(Debug, Default)]
struct Blocks {
    newest: u64,
    of_newest: HashMap<PaymentKey, Kept>,
    of_parent: HashMap<PaymentKey, Kept>,
}

#[derive(Debug)]
struct Kept {
    verified: Arc<Verified>,
    at: Instant,
}

impl Verdicts {
    /// Remembers a verdict, for as long as its block is the newest or that one's parent.
    pub(super) fn keep(&self, key: PaymentKey, verified: &Arc<Verified>) {
        let mut blocks = self.lock();
        let number = verified.block_number();
        blocks.see(number);
        let verdicts = match blocks.newest - number {
            0 => &mut blocks.of_newest,
            1 => &mut blocks.of_parent,
            _ => return,
        };
        if verdicts.len() < N_VERDICTS_MAX {
            verdicts.insert(key, Kept { verified: Arc::clone(verified), at: Instant::now() });
        }
    }

    /// The verdict on a payment, if there is one that is at most one block old.
    pub(super) fn find(&self, key: &PaymentKey) -> Option<Arc<Verified>> {
        let blocks = self.lock();
        let kept = blocks.of_newest.get(key).or_else(|| blocks.of_parent.get(key))?;
        (kept.at.elapsed() <= AGE_MAX).then(|| Arc::clone(&kept.verified))
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blocks {
    fn see(&mut self, number: u64) {
        if number <= self.newest {
            return;
        }
        let of_parent = std::mem::take(&mut self.of_newest);
        self.of_parent = if number == self.newest + 1 { of_parent } else { HashMap::new() };
        self.newest = number;
    }
}
