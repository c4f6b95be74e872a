//! What an engine tells of itself, for readiness and for people.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long the follower may go without a successful look at the chain.
const FOLLOWER_SILENCE_MAX: Duration = Duration::from_secs(15);

/// A running engine's state of health.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    followed_at: Option<Instant>,
    follower_error: Option<String>,
    wallet_ready: bool,
    wallet_error: Option<String>,
}

/// A moment of that state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// What is wrong, in a sentence; `None` when the engine can settle payments.
    pub trouble: Option<String>,
}

impl Health {
    pub(super) fn followed(&self) {
        let mut state = self.lock();
        state.followed_at = Some(Instant::now());
        state.follower_error = None;
    }

    pub(super) fn follower_failed(&self, error: String) {
        self.lock().follower_error = Some(error);
    }

    pub(super) fn wallet_ready(&self) {
        let mut state = self.lock();
        state.wallet_ready = true;
        state.wallet_error = None;
    }

    pub(super) fn wallet_failed(&self, error: String) {
        self.lock().wallet_error = Some(error);
    }

    pub(super) fn report(&self) -> HealthReport {
        let state = self.lock();
        let silent = state.followed_at.is_none_or(|at| at.elapsed() > FOLLOWER_SILENCE_MAX);
        let reason = |error: &Option<String>, otherwise: &str| {
            Some(error.clone().unwrap_or_else(|| otherwise.to_owned()))
        };
        let trouble = if !state.wallet_ready {
            reason(&state.wallet_error, "the wallet is starting")
        } else if silent {
            reason(&state.follower_error, "no block was read yet")
        } else {
            None
        };
        HealthReport { trouble }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
