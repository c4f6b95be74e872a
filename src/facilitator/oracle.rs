//! What a chain's sanctions oracle says, asked for many addresses at a time and remembered for seconds.
//!
//! There is no timer: an idle line asks at once, and what arrives while a call is under way shares the
//! next.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Duration,
};

use alloy::primitives::Address;
use futures_util::future::try_join_all;
use moka::future::Cache;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Chain, ChainError, N_ASKED_MAX},
    lists::{Denial, Denier, Parties},
};

use super::coalesce::Trouble;

/// How old an answer may be when a payment is verified: what is verified is asked again when it is claimed.
pub(super) const VERIFY_AGE_MAX: Duration = Duration::from_secs(10);
/// How old it may be when a payment is claimed: a block of Base.
pub(super) const CLAIM_AGE_MAX: Duration = Duration::from_secs(2);
/// How many answers are remembered; 100 bytes each.
const N_KNOWN_MAX: u64 = 100_000;
/// How many questions may wait for a call.
const N_WAITING_MAX: usize = 20_000;
/// How long an answer takes at most. Official clients give up after thirty seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer, and when it was asked for.
#[derive(Debug, Clone, Copy)]
struct Word {
    is_sanctioned: bool,
    asked_at: Instant,
}

/// Whether each of the addresses that were asked about is sanctioned.
type Answer = Result<Vec<bool>, Arc<ChainError>>;

#[derive(Debug)]
struct Question {
    addresses: Vec<Address>,
    caller: oneshot::Sender<Answer>,
}

/// The line in front of one chain's oracle. Somebody has to [`Oracle::run`] it.
#[derive(Debug)]
pub struct Oracle {
    chain: Chain,
    address: Address,
    known: Cache<Address, Word>,
    line: mpsc::Sender<Question>,
    waiting: Mutex<mpsc::Receiver<Question>>,
}

impl Oracle {
    /// The oracle at `address`.
    pub fn new(chain: Chain, address: Address) -> Self {
        let known = Cache::builder().max_capacity(N_KNOWN_MAX).time_to_live(VERIFY_AGE_MAX).build();
        let (line, waiting) = mpsc::channel(N_WAITING_MAX);
        Self { chain, address, known, line, waiting: Mutex::new(waiting) }
    }

    /// The first party that the oracle calls sanctioned, by answers no older than `age_max`.
    pub(super) async fn denies(
        &self,
        parties: &Parties,
        age_max: Duration,
    ) -> Result<Option<Denial>, Trouble> {
        let named = parties.named().map(|(_, address)| address).collect();
        let sanctioned = self.sanctioned(named, age_max).await?;
        let found = parties.named().find(|(_, address)| sanctioned.contains(address));
        let Some((kind, address)) = found else { return Ok(None) };
        let denier = Denier::Oracle(self.address);
        // A contract has no version; its word is of the moment that the record names.
        Ok(Some(Denial { kind, address, denier, version: "latest".to_owned() }))
    }

    /// Has the answers about `addresses` ready for those who ask next. What goes wrong, they are told.
    pub(super) async fn prepare(&self, addresses: Vec<Address>) {
        let _ = self.sanctioned(addresses, VERIFY_AGE_MAX).await;
    }

    /// Those of the addresses that are sanctioned.
    async fn sanctioned(
        &self,
        addresses: Vec<Address>,
        age_max: Duration,
    ) -> Result<BTreeSet<Address>, Trouble> {
        let (mut sanctioned, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for address in addresses {
            match self.known.get(&address).await.filter(|word| word.asked_at.elapsed() <= age_max) {
                Some(word) if word.is_sanctioned => drop(sanctioned.insert(address)),
                Some(_) => (),
                None => drop(unknown.insert(address)),
            }
        }
        if unknown.is_empty() {
            return Ok(sanctioned);
        }
        let (caller, answer) = oneshot::channel();
        let addresses: Vec<Address> = unknown.into_iter().collect();
        let question = Question { addresses: addresses.clone(), caller };
        self.line.try_send(question).map_err(|_| Trouble::Busy)?;
        let said = match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer.map_err(Trouble::Chain)?,
            // Nobody answers any more: the service is stopping.
            Ok(Err(_)) | Err(_) => return Err(Trouble::Busy),
        };
        let found = addresses.into_iter().zip(said).filter(|(_, is_sanctioned)| *is_sanctioned);
        sanctioned.extend(found.map(|(address, _)| address));
        Ok(sanctioned)
    }

    /// Answers until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut waiting = self.waiting.lock().await;
        let mut questions = Vec::new();
        loop {
            let arrived = waiting.recv_many(&mut questions, N_ASKED_MAX);
            match stop.run_until_cancelled(arrived).await {
                None | Some(0) => return,
                Some(_) => (),
            }
            let answered = self.answer(mem::take(&mut questions));
            if stop.run_until_cancelled(answered).await.is_none() {
                return;
            }
        }
    }

    async fn answer(&self, mut questions: Vec<Question>) {
        // Who gave up is not asked for.
        questions.retain(|question| !question.caller.is_closed());
        let asked = questions.iter().flat_map(|question| question.addresses.iter().copied());
        let asked: Vec<Address> = asked.collect::<BTreeSet<_>>().into_iter().collect();
        let asked_at = Instant::now();
        let calls = asked.chunks(N_ASKED_MAX).map(async |part| {
            let said = self.chain.sanctioned(self.address, part).await?;
            Ok::<_, ChainError>(part.iter().copied().zip(said).collect::<Vec<_>>())
        });
        let said = match try_join_all(calls).await {
            Ok(said) => said.concat().into_iter().collect::<BTreeMap<_, _>>(),
            Err(error) => {
                let error = Arc::new(error);
                for question in questions {
                    // Who hung up is not told.
                    let _ = question.caller.send(Err(Arc::clone(&error)));
                }
                return;
            }
        };
        for (address, is_sanctioned) in &said {
            let word = Word { is_sanctioned: *is_sanctioned, asked_at };
            self.known.insert(*address, word).await;
        }
        for question in questions {
            let of = |address| said.get(address).copied().expect("everybody was asked about");
            let answer = question.addresses.iter().map(of).collect();
            let _ = question.caller.send(Ok(answer));
        }
    }
}
