//! Verifications that wait together are looked at together.
//!
//! An idle chain is asked at once. What arrives while a call is under way shares the next one, and so does
//! every equal payment; there is no timer. A call is over when those who shared it have their answers in
//! hand: where every core is busy, that is when the payments before them are checked and in line. A list
//! that is full does not wait. An answer is never older than its question.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{BlockId, Chain, ChainError, LENS_LIST_MAX, Question},
    db::DbError,
    ledger::PromiseKey,
    verify::{ChainSnapshot, PaymentKey},
};

use super::{Oracle, Promises, verify::Books};

/// How many calls may be under way for one chain: with full lists, 26,000 verifications a second at an
/// endpoint that takes 30 ms.
const N_CALLS_MAX: usize = 8;
/// How many payments may wait for a call. Memory, not time, is what this limits.
const N_WAITING_MAX: usize = 10_000;
/// How long the line may be beyond one round of calls, by what the last ones took. Who would wait longer
/// is told to come back.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// How long a verification takes at most. Official clients give up after thirty seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How much the newest call counts in what calls take: an eighth.
const PACE_DIVISOR: u32 = 8;

/// What the chain and the books say of one payment.
#[derive(Debug)]
pub(super) struct Seen {
    /// At one block of the chain.
    pub(super) snapshot: ChainSnapshot,
    /// At one moment.
    pub(super) books: Books,
}

/// Why there is no answer, for everybody who shared the call.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    Chain(Arc<ChainError>),
    Db(Arc<DbError>),
    /// Too many wait, or the answer took too long.
    Busy,
}

type Answer = Result<Arc<Seen>, Trouble>;
/// What a caller is told, and the call that it shared.
type Told = (Answer, Arc<Round>);

/// A call, from its beginning until nobody who shared it waits to be told. It ends with its last clone.
#[derive(Debug)]
struct Round(Arc<Desk>);

impl Drop for Round {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        line.n_under_way = line.n_under_way.saturating_sub(1);
        let is_time = line.is_time_to_ask();
        drop(line);
        if is_time {
            self.0.arrived.notify_one();
        }
    }
}

/// The line of verifications of one chain.
#[derive(Debug)]
pub struct Coalescer {
    chain: Chain,
    promises: Arc<Promises>,
    oracle: Option<Arc<Oracle>>,
    desk: Arc<Desk>,
}

/// The line, and the bell that is rung when a call is to begin.
#[derive(Debug, Default)]
struct Desk {
    line: Mutex<Line>,
    arrived: Notify,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Line {
    keys: VecDeque<PaymentKey>,
    waiting: HashMap<PaymentKey, Entry>,
    n_under_way: usize,
    /// What a call takes, of late.
    pace: Duration,
}

#[derive(Debug)]
struct Entry {
    question: Question,
    callers: Vec<oneshot::Sender<Told>>,
}

impl Line {
    /// Whether a call is to begin now: nothing is under way, or a list is full.
    fn is_time_to_ask(&self) -> bool {
        match self.n_under_way {
            0 => !self.keys.is_empty(),
            n => self.keys.len() >= LENS_LIST_MAX && n < N_CALLS_MAX,
        }
    }
}

impl Coalescer {
    /// A line in front of `chain`. Somebody has to [`Coalescer::run`] it.
    pub fn new(chain: Chain, promises: Arc<Promises>, oracle: Option<Arc<Oracle>>) -> Self {
        Self { chain, promises, oracle, desk: Arc::default() }
    }

    /// What the newest block and the books say of a payment.
    pub(super) async fn ask(&self, key: PaymentKey, question: Question) -> Answer {
        let answer = self.enter(key, question)?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok((answer, _round))) => answer,
            // Nobody answers any more: the service is stopping.
            Ok(Err(_)) | Err(_) => Err(Trouble::Busy),
        }
    }

    fn enter(
        &self,
        key: PaymentKey,
        question: Question,
    ) -> Result<oneshot::Receiver<Told>, Trouble> {
        let (caller, answer) = oneshot::channel();
        let mut line = self.desk.lock();
        if let Some(entry) = line.waiting.get_mut(&key) {
            entry.callers.push(caller);
            return Ok(answer);
        }
        let n_waiting = line.keys.len();
        if n_waiting >= N_WAITING_MAX || expected_wait(n_waiting, line.pace) > WAIT_MAX {
            metrics::counter!("quittance_verify_shed_total").increment(1);
            return Err(Trouble::Busy);
        }
        line.waiting.insert(key.clone(), Entry { question, callers: vec![caller] });
        line.keys.push_back(key);
        let is_time = line.is_time_to_ask();
        drop(line);
        // Otherwise the end of a call comes first, and looks at the line by itself.
        if is_time {
            self.desk.arrived.notify_one();
        }
        Ok(answer)
    }

    /// Answers until `stop`. Belongs on a runtime whose threads do not check signatures.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut calls = FuturesUnordered::new();
        loop {
            while let Some((list, round)) = self.next_list() {
                calls.push(self.answer(list, round));
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.desk.arrived.notified() => (),
                Some(()) = calls.next(), if !calls.is_empty() => (),
            }
        }
    }

    /// What the next call asks, if there is to be one now.
    fn next_list(&self) -> Option<(Vec<Entry>, Arc<Round>)> {
        let mut line = self.desk.lock();
        if !line.is_time_to_ask() {
            return None;
        }
        line.n_under_way = line.n_under_way.saturating_add(1);
        let n = line.keys.len().min(LENS_LIST_MAX);
        let Line { keys, waiting, .. } = &mut *line;
        let taken = keys.drain(..n).filter_map(|key| waiting.remove(&key));
        // Who gave up is not looked at.
        let list = taken.filter(|entry| entry.callers.iter().any(|caller| !caller.is_closed()));
        Some((list.collect(), Arc::new(Round(Arc::clone(&self.desk)))))
    }

    async fn answer(&self, list: Vec<Entry>, round: Arc<Round>) {
        let started = Instant::now();
        let (mut questions, mut callers) =
            (Vec::with_capacity(list.len()), Vec::with_capacity(list.len()));
        for entry in list {
            questions.push(entry.question);
            callers.push(entry.callers);
        }
        if questions.is_empty() {
            return;
        }
        let n_payments = u32::try_from(questions.len()).unwrap_or(u32::MAX);
        let seen = self.see(&questions).await;
        metrics::histogram!("quittance_lens_payments").record(n_payments);
        self.keep_pace(started.elapsed());
        let trouble = match seen {
            Ok(seen) => {
                for (seen, callers) in seen.into_iter().zip(callers) {
                    tell(callers, &Ok(Arc::new(seen)), &round);
                }
                return;
            }
            Err(trouble) => trouble,
        };
        for callers in callers {
            tell(callers, &Err(trouble.clone()), &round);
        }
    }

    /// The chain first, so that the books are not older than the block.
    async fn see(&self, questions: &[Question]) -> Result<Vec<Seen>, Trouble> {
        let (snapshots, ()) =
            tokio::join!(self.chain.look(questions, BlockId::latest()), self.ask_oracle(questions));
        let snapshots = snapshots.map_err(|error| Trouble::Chain(Arc::new(error)))?;
        let oldest = snapshots.iter().min_by_key(|snapshot| snapshot.block_number);
        let Some(oldest) = oldest else { return Ok(Vec::new()) };
        let (number, time) = (oldest.block_number, oldest.block_time);
        let keys: Vec<PromiseKey> = questions
            .iter()
            .map(|question| PromiseKey::of(question.asset(), question.authorization()))
            .collect();
        let promises = self
            .promises
            .of(self.chain.chain_id(), number, time, &keys)
            .await
            .map_err(|error| Trouble::Db(Arc::new(error)))?;
        let applied_head = promises.applied_head;
        let seen = snapshots.into_iter().zip(promises.promised).map(|(snapshot, promised)| {
            let books = Books { promised, applied_head };
            Seen { snapshot, books }
        });
        Ok(seen.collect())
    }

    /// The oracle is asked about all of them at once, so that nobody has to ask about one.
    async fn ask_oracle(&self, questions: &[Question]) {
        let Some(oracle) = &self.oracle else { return };
        let mut named = Vec::with_capacity(3 * questions.len());
        for question in questions {
            let authorization = question.authorization();
            named.extend([authorization.payer, authorization.payee, question.asset()]);
        }
        oracle.prepare(named).await;
    }

    fn keep_pace(&self, took: Duration) {
        let mut line = self.desk.lock();
        line.pace = match mem::take(&mut line.pace) {
            Duration::ZERO => took,
            pace => pace - pace / PACE_DIVISOR + took / PACE_DIVISOR,
        };
    }
}

/// How long the last of `n_waiting` waits beyond the next round of calls, if each takes `pace`.
fn expected_wait(n_waiting: usize, pace: Duration) -> Duration {
    let n_rounds = n_waiting / (LENS_LIST_MAX * N_CALLS_MAX);
    pace.saturating_mul(u32::try_from(n_rounds).unwrap_or(u32::MAX))
}

fn tell(callers: Vec<oneshot::Sender<Told>>, answer: &Answer, round: &Arc<Round>) {
    for caller in callers {
        // Who hung up is not told.
        let _ = caller.send((answer.clone(), Arc::clone(round)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LENS_LIST_MAX, N_CALLS_MAX, WAIT_MAX, expected_wait};

    #[test]
    fn the_line_is_as_long_as_the_endpoint_is_quick() {
        let round = LENS_LIST_MAX * N_CALLS_MAX;
        let is_admitted = |n_waiting, pace_ms| {
            expected_wait(n_waiting, Duration::from_millis(pace_ms)) <= WAIT_MAX
        };
        // One round is always waited for, however slow.
        assert!(is_admitted(round - 1, 4_000));
        assert!(!is_admitted(round, 501));
        assert!(is_admitted(round, 500));
        // At 30 ms a call the line is longer than memory allows.
        assert!(is_admitted(16 * round, 30));
        assert!(!is_admitted(17 * round, 30));
    }
}
