//! Tells waiting callers that their settlement has an outcome, and engines that there is news.
//!
//! Whoever commits an outcome sends one Postgres notification per block; every replica listens on
//! one connection and asks once for all its waiting callers. A poll makes up for lost notifications.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, postgres::PgListener};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    db::{DbError, During},
    domain::{ChainId, SettlementId},
    ledger,
    telemetry::causes,
};

use super::Engine;

/// How many callers may wait in one process. Each costs a connection and a few hundred bytes.
const N_WAITING_MAX: usize = 10_000;
/// How often outcomes are looked for without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long after it was taken or renewed the right of a waiting caller is renewed: half its length.
const RENEW_AFTER: Duration = Duration::from_secs(3);
/// The Postgres channel.
const CHANNEL: &str = "quittance_news";

/// The callers of this process that wait for an outcome.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    callers: Arc<Callers>,
}

#[derive(Debug, Default)]
struct Callers {
    state: Mutex<State>,
    /// Wakes the loop: a caller went away.
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many places were ever given; it numbers them.
    n_places: u64,
    /// How many are taken.
    n_taken: usize,
    waiting: HashMap<SettlementId, Vec<Place>>,
    /// Settlements whose caller went away without being told.
    abandoned: Vec<SettlementId>,
}

#[derive(Debug)]
struct Place {
    number: u64,
    renewed_at: Instant,
    wake: oneshot::Sender<()>,
}

/// A caller's place. Dropping it without [`Waiting::leave`] means that the caller was not told: it went
/// away, or trouble came between. Its right is released then, and its retry can take the answer.
#[derive(Debug)]
pub struct Waiting {
    callers: Arc<Callers>,
    settlement_id: SettlementId,
    number: u64,
    woken: oneshot::Receiver<()>,
    is_told: bool,
}

/// No more callers can wait; they should come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{N_WAITING_MAX} callers are waiting for settlements already")]
pub struct TooManyWaiting;

impl Waiting {
    /// Waits until the settlement has an outcome, or `deadline`.
    pub async fn until(&mut self, deadline: Instant) {
        // A closed channel means that the process is stopping; the caller reads the row either way.
        let _ = tokio::time::timeout_at(deadline, &mut self.woken).await;
    }

    /// Leaves the place of a caller that has its answer, or needs none from it.
    pub fn leave(mut self) {
        self.is_told = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.callers.lock();
        if let Some(places) = state.waiting.get_mut(&self.settlement_id) {
            places.retain(|place| place.number != self.number);
            if places.is_empty() {
                state.waiting.remove(&self.settlement_id);
            }
        }
        state.n_taken = state.n_taken.saturating_sub(1);
        if !self.is_told {
            state.abandoned.push(self.settlement_id);
            drop(state);
            self.callers.left.notify_one();
        }
    }
}

impl Callers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcomes {
    /// Takes a place. The caller reads the settlement once more afterwards: it may be decided.
    pub fn wait_for(&self, settlement_id: SettlementId) -> Result<Waiting, TooManyWaiting> {
        let mut state = self.callers.lock();
        if state.n_taken >= N_WAITING_MAX {
            return Err(TooManyWaiting);
        }
        let (wake, woken) = oneshot::channel();
        let number = state.n_places;
        state.n_places = number.wrapping_add(1);
        state.n_taken = state.n_taken.saturating_add(1);
        let place = Place { number, renewed_at: Instant::now(), wake };
        state.waiting.entry(settlement_id).or_default().push(place);
        let callers = Arc::clone(&self.callers);
        Ok(Waiting { callers, settlement_id, number, woken, is_told: false })
    }

    /// Delivers outcomes until `stop`, then wakes everybody. Wakes the engines too when another process
    /// changed something on their chain.
    pub async fn run(&self, pool: &PgPool, engines: &[Arc<Engine>], stop: &CancellationToken) {
        let mut listener = None;
        while !stop.is_cancelled() {
            if listener.is_none() {
                listener = listen(pool).await;
            }
            let notified = async {
                match &mut listener {
                    Some(listener) => listener.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(POLL_INTERVAL) => (),
                () = self.callers.left.notified() => (),
                received = notified => match received {
                    Ok(notification) => {
                        let chain_id = notification.payload();
                        let concerned = engines.iter().filter(|engine| {
                            engine.chain().chain_id().to_string() == chain_id
                        });
                        concerned.for_each(|engine| engine.heard());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the connection that listens for outcomes was lost");
                        listener = None;
                    }
                }
            }
            if let Err(error) = self.deliver(pool).await {
                tracing::warn!(error = causes(&error), "could not look for outcomes");
            }
        }
        self.callers.lock().waiting.clear();
    }

    async fn deliver(&self, pool: &PgPool) -> Result<(), DbError> {
        let (all, old, abandoned) = self.survey();
        metrics::gauge!("quittance_settle_waiting")
            .set(u32::try_from(all.len()).unwrap_or(u32::MAX));
        if all.is_empty() && abandoned.is_empty() {
            return Ok(());
        }
        let mut conn = pool.acquire().await.during("look for outcomes")?;
        if !old.is_empty() {
            ledger::renew_answer_rights(&mut conn, &old).await?;
        }
        if !abandoned.is_empty() {
            ledger::release_answer_rights(&mut conn, &abandoned).await?;
        }
        let decided = ledger::decided(&mut conn, &all).await?;
        let mut state = self.callers.lock();
        for place in decided.iter().filter_map(|id| state.waiting.remove(id)).flatten() {
            // A caller that went away needs no waking.
            let _ = place.wake.send(());
        }
        Ok(())
    }

    /// All settlements that are waited for, those whose rights are to be renewed, and those whose caller
    /// went away since the last time.
    fn survey(&self) -> (Vec<SettlementId>, Vec<SettlementId>, Vec<SettlementId>) {
        let mut state = self.callers.lock();
        let all = state.waiting.keys().copied().collect();
        let mut old = Vec::new();
        for (settlement_id, places) in &mut state.waiting {
            if places.iter().any(|place| place.renewed_at.elapsed() > RENEW_AFTER) {
                old.push(*settlement_id);
                places.iter_mut().for_each(|place| place.renewed_at = Instant::now());
            }
        }
        let abandoned = std::mem::take(&mut state.abandoned);
        (all, old, abandoned)
    }
}

async fn listen(pool: &PgPool) -> Option<PgListener> {
    let connected = async {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    connected
        .await
        .inspect_err(|error| tracing::warn!(%error, "could not listen for outcomes"))
        .ok()
}

/// Announces, when the surrounding transaction commits, that something changed on a chain: settlements
/// have outcomes, or wait for a wallet. Once per block: every commit with a notification takes a lock that all of Postgres shares.
pub(super) async fn announce(conn: &mut PgConnection, chain_id: ChainId) -> Result<(), DbError> {
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, chain_id.to_string())
        .execute(conn)
        .await
        .during("announce outcomes")?;
    Ok(())
}
