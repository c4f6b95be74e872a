//! What an engine tells of itself, for readiness and for people.

use std::{
    collections::BTreeMap,
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
    /// Whether any process works with an active wallet.
    staff: Mutex<Pulse>,
    /// The wallets of this process.
    wallets: Mutex<BTreeMap<i32, Pulse>>,
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

    pub(super) fn staff_succeeded(&self) {
        *lock(&self.staff) = Pulse { succeeded_at: Some(Instant::now()), trouble: None };
    }

    pub(super) fn staff_failed(&self, trouble: String) {
        lock(&self.staff).trouble = Some(trouble);
    }

    pub(super) fn wallet_succeeded(&self, wallet_id: i32) {
        let pulse = Pulse { succeeded_at: Some(Instant::now()), trouble: None };
        lock(&self.wallets).insert(wallet_id, pulse);
    }

    pub(super) fn wallet_failed(&self, wallet_id: i32, trouble: String) {
        lock(&self.wallets).entry(wallet_id).or_default().trouble = Some(trouble);
    }

    pub(super) fn wallet_left(&self, wallet_id: i32) {
        lock(&self.wallets).remove(&wallet_id);
    }

    pub(super) fn report(&self) -> HealthReport {
        let of_staff = lock(&self.staff).trouble("the wallets are starting");
        // One wallet that works is enough: the others' trouble is in the log.
        let of_wallets: Option<Vec<String>> = lock(&self.wallets)
            .values()
            .map(|pulse| pulse.trouble("a wallet is starting"))
            .collect();
        let of_wallets = of_wallets.and_then(|troubles| troubles.into_iter().next());
        let of_follower = lock(&self.follower).trouble("no block was read yet");
        let troubles: Vec<String> =
            [of_staff, of_wallets, of_follower].into_iter().flatten().collect();
        HealthReport { trouble: (!troubles.is_empty()).then(|| troubles.join("; ")) }
    }
}

fn lock<T>(pulse: &Mutex<T>) -> MutexGuard<'_, T> {
    pulse.lock().unwrap_or_else(PoisonError::into_inner)
}
