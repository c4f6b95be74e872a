//! The books against themselves and against the chain: I1, I2, I5, I8.

use std::collections::{HashMap, HashSet};

use alloy::primitives::{B256, U256};
use uuid::Uuid;

use crate::{
    clients::OUTCOME_AFTER_EXPIRY,
    record::{Entry, Tier},
};

use super::{Case, chain::cancelled};

/// How far a block's time may be ahead of the clock: a reorganization builds several at once.
const CLOCKS_MS: u64 = 10_000;

impl<'a> Case<'a> {
    /// I1: post and reverse take turns, a reverse takes back what was posted, nothing is voided while
    /// it is posted, and no payment has two rows.
    pub(super) fn one_net_post_per_payment(&mut self) {
        let mut identities = HashSet::new();
        for settlement in &self.run.books.settlements {
            if !identities.insert(settlement.identity) {
                let what = format!("{:?} has two settlements", settlement.identity);
                self.wrong_with("I1", settlement.id, what);
            }
            let mut posted = None;
            let mut is_pending = false;
            for entry in self.payment_entries(settlement.id) {
                let is_right = match entry.kind.as_str() {
                    "pending" => !std::mem::replace(&mut is_pending, true),
                    "post" => is_pending && posted.replace(entry.block_hash).is_none(),
                    "reverse" => posted.take() == Some(entry.block_hash),
                    "void" => is_pending && posted.is_none(),
                    _ => false,
                };
                if !is_right {
                    let what = format!("its entries take no turns at {entry:?}");
                    self.wrong_with("I1", settlement.id, what);
                }
            }
        }
    }

    /// I2: what is posted net is what canonical logs say, payment by payment and in sum.
    pub(super) fn books_say_what_the_chain_says(&mut self) {
        let posted = self.net_posted();
        for settlement in &self.run.books.settlements {
            let post = posted.get(&settlement.id).copied();
            let paid = self.paid.of(settlement.identity).to_vec();
            let says_paid = Tier::of(&settlement.status).is_some();
            let mut wrong = |what: String| self.wrong_with("I2", settlement.id, what);
            match (post, paid.as_slice()) {
                (None, []) if !says_paid => (),
                (Some(post), [paid]) if says_paid => {
                    let accounts = (
                        format!("payer:{:#x}", settlement.identity.payer),
                        format!("payee:{:#x}", paid.payee),
                    );
                    let is_equal = post.block_hash == Some(paid.block_hash)
                        && post.amount == paid.amount
                        && (post.debit.to_lowercase(), post.credit.to_lowercase()) == accounts
                        && (settlement.amount, settlement.payee) == (paid.amount, paid.payee)
                        && settlement.block_hash == Some(paid.block_hash)
                        && settlement.transaction_hash == Some(paid.transaction_hash);
                    if !is_equal {
                        wrong(format!(
                            "posted {post:?}, settled {settlement:?}, and the chain says {paid:?}"
                        ));
                    }
                }
                (post, paid) => wrong(format!(
                    "it is {}, posted by {post:?}, and the chain says {paid:?}",
                    settlement.status
                )),
            }
        }
        let sum = |amounts: &mut dyn Iterator<Item = U256>| amounts.fold(U256::ZERO, |a, b| a + b);
        let in_books = sum(&mut posted.values().map(|entry| entry.amount));
        let known = |identity| self.settlements.contains_key(identity);
        let on_chain = sum(&mut self
            .paid
            .iter()
            .filter(|payment| known(&payment.identity))
            .map(|payment| payment.amount));
        let to_payee = sum(&mut self
            .paid
            .iter()
            .filter(|payment| payment.payee == self.run.payee)
            .map(|payment| payment.amount));
        if in_books != on_chain {
            self.wrong("I2", format!("{in_books} is posted, and {on_chain} was paid"));
        }
        if to_payee != self.run.payee_gain {
            let gain = self.run.payee_gain;
            self.wrong("I2", format!("the payee gained {gain}, and logs say {to_payee}"));
        }
        self.evidence_is_canonical();
    }

    /// I2: standing evidence is a canonical log, and says truly whose it is.
    fn evidence_is_canonical(&mut self) {
        let run = self.run;
        let ours: HashSet<B256> = run.books.attempts.iter().map(|attempt| attempt.hash).collect();
        let identities: HashMap<Uuid, _> =
            run.books.settlements.iter().map(|s| (s.id, s.identity)).collect();
        for evidence in &run.books.evidence {
            let is_true = self.paid.of(identities[&evidence.settlement]).iter().any(|paid| {
                (paid.block_hash, paid.log_index, paid.transaction_hash)
                    == (evidence.block_hash, evidence.log_index, evidence.transaction_hash)
            });
            if !is_true || evidence.by_us != ours.contains(&evidence.transaction_hash) {
                let what = format!("{evidence:?} is no canonical log of it");
                self.wrong_with("I2", evidence.settlement, what);
            }
        }
    }

    /// I5: what failed was not paid, nor is it paid by us afterwards: whoever calls it failed has
    /// proof that it cannot be, which only the removal of a cancellation can take back.
    pub(super) fn failed_is_unpaid(&mut self) {
        let run = self.run;
        let ours: HashSet<B256> = run.books.attempts.iter().map(|attempt| attempt.hash).collect();
        let was_cancelled = cancelled(&run.orphaned, run.asset);
        for settlement in &run.books.settlements {
            if let ("failed", [paid, ..]) =
                (settlement.status.as_str(), self.paid.of(settlement.identity))
            {
                let what = format!("it failed, and {} paid it", paid.transaction_hash);
                self.wrong_with("I5", settlement.id, what);
            }
            for pair in self.events_of(settlement.id).windows(2) {
                let (failed, next) = (pair[0], pair[1]);
                let is_ours = next.transaction_hash.is_some_and(|hash| ours.contains(&hash));
                let is_excused = was_cancelled.contains(&settlement.identity)
                    || failed.at_ms + CLOCKS_MS >= settlement.valid_before_s * 1_000;
                if failed.to == "failed" && is_ours && !is_excused {
                    let what = format!("it was called failed, and we paid it: {next:?}");
                    self.wrong_with("I5", settlement.id, what);
                }
            }
        }
    }

    /// I8: every settlement has its outcome within a minute of its expiry, or of the
    /// reorganization that took an earlier one back.
    pub(super) fn everything_ends_in_time(&mut self) {
        for settlement in &self.run.books.settlements {
            let mut due_ms = settlement.valid_before_s * 1_000;
            let mut ended_ms = None;
            for event in self.events_of(settlement.id) {
                if event.to != "failed" && Tier::of(&event.to).is_none() {
                    if ended_ms.take().is_some() {
                        due_ms = due_ms.max(event.at_ms);
                    }
                } else if ended_ms.is_none() {
                    ended_ms = Some(event.at_ms);
                }
            }
            let due_ms = due_ms + u64::try_from(OUTCOME_AFTER_EXPIRY.as_millis()).unwrap();
            if ended_ms.is_none_or(|ended_ms| ended_ms > due_ms) {
                let what = format!("it is {} and had until {due_ms} ms", settlement.status);
                self.wrong_with("I8", settlement.id, what);
            }
        }
    }

    fn payment_entries(&self, settlement: Uuid) -> Vec<&'a Entry> {
        let entries = self.run.books.entries.iter();
        entries.filter(|entry| !entry.is_gas && entry.settlement == settlement).collect()
    }

    /// The post that stands, by settlement.
    fn net_posted(&self) -> HashMap<Uuid, &'a Entry> {
        let mut posted = HashMap::new();
        for entry in self.run.books.entries.iter().filter(|entry| !entry.is_gas) {
            match entry.kind.as_str() {
                "post" => drop(posted.insert(entry.settlement, entry)),
                "reverse" => drop(posted.remove(&entry.settlement)),
                _ => (),
            }
        }
        posted
    }
}
