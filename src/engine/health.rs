//! What an engine tells of itself, for readiness and for people.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a loop may go without success before it counts as trouble.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A running engine's state of health.
#[derive(Debug, Default)]
pub struct Health {
    follower: Mutex<Pulse>,
    wallet: Mutex<Pulse>,
}

/// One loop's last success, and what came after it.
#[derive(Debug, Default)]
struct Pulse {
    succeeded_at: Option<Instant>,
    trouble: Option<String>,
}

/// A moment of that state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// What is wrong, in a sentence; `None` when the engine can settle payments.
    pub trouble: Option<String>,
}

impl Pulse {
    fn trouble(&self, otherwise: &str) -> Option<String> {
        let is_silent = self.succeeded_at.is_none_or(|at| at.elapsed() > SILENCE_MAX);
        is_silent.then(|| self.trouble.clone().unwrap_or_else(|| otherwise.to_owned()))
    }
}

impl Health {
    pub(super) fn follower_succeeded(&self) {
        *lock(&self.follower) = Pulse { succeeded_at: Some(Instant::now()), trouble: None };
    }

    pub(super) fn follower_failed(&self, trouble: String) {
        lock(&self.follower).trouble = Some(trouble);
    }

    pub(super) fn wallet_succeeded(&self) {
        *lock(&self.wallet) = Pulse { succeeded_at: Some(Instant::now()), trouble: None };
    }

    pub(super) fn wallet_failed(&self, trouble: String) {
        lock(&self.wallet).trouble = Some(trouble);
    }

    pub(super) fn report(&self) -> HealthReport {
        let of_wallet = lock(&self.wallet).trouble("the wallet is starting");
        let trouble = of_wallet.or_else(|| lock(&self.follower).trouble("no block was read yet"));
        HealthReport { trouble }
    }
}

fn lock(pulse: &Mutex<Pulse>) -> MutexGuard<'_, Pulse> {
    pulse.lock().unwrap_or_else(PoisonError::into_inner)
}
