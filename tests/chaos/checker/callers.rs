//! What callers heard, against the books and the chain: I6, I7, I11.

use std::collections::BTreeMap;

use alloy::primitives::B256;
use uuid::Uuid;

use crate::record::{Asked, Heard, Identity, Tier};

use super::Case;

/// The patience of the SDKs.
const ANSWERED_WITHIN_MS: u64 = 30_000;
/// An event carries the time at which its database transaction began. What it took back may be
/// handed out until that is committed.
const COMMIT_MS: u64 = 2_000;

impl<'a> Case<'a> {
    /// I6: whoever was told success was told so while its evidence stood, as deep as was asked for.
    pub(super) fn success_had_evidence(&mut self) {
        for asked in &self.run.history {
            let Heard::Paid { transaction_hash, is_replay } = asked.heard else { continue };
            let Some(settlement) = self.settlements.get(&asked.identity).map(|s| s.id) else {
                self.wrong("I6", format!("success without a settlement: {asked:?}"));
                continue;
            };
            let logs = self.paid.of(asked.identity).iter().chain(self.orphaned.of(asked.identity));
            if !logs.into_iter().any(|paid| paid.transaction_hash == transaction_hash) {
                let what = format!("success, and no block ever held {transaction_hash} with it");
                self.wrong_with("I6", settlement, what);
            }
            // A replay repeats an answer, whose evidence may stand less deep after a reorganization.
            let tier = if is_replay { Tier::Included } else { asked.wait_for };
            if !self.stood(settlement, transaction_hash, tier, asked) {
                let what = format!(
                    "success by {transaction_hash}, which did not stand {} then: {asked:?}",
                    tier.word()
                );
                self.wrong_with("I6", settlement, what);
            }
        }
    }

    /// Whether that transaction was the evidence at some moment of the request.
    fn stood(&self, settlement: Uuid, hash: B256, tier: Tier, asked: &Asked) -> bool {
        let events = self.events_of(settlement);
        let ends = events.iter().skip(1).map(|event| event.at_ms + COMMIT_MS).chain([u64::MAX]);
        events.iter().zip(ends).any(|(event, end_ms)| {
            Tier::of(&event.to).is_some_and(|stood| stood >= tier)
                && event.transaction_hash == Some(hash)
                && event.at_ms <= asked.ended_ms
                && end_ms >= asked.at_ms
        })
    }

    /// I7: requests with one key hear one outcome, and without a key success is told once.
    pub(super) fn equal_requests_have_equal_answers(&mut self) {
        let mut by_payment: BTreeMap<(Identity, Option<&str>), Vec<&Asked>> = BTreeMap::new();
        for asked in self.run.history.iter().filter(|asked| asked.heard.is_terminal()) {
            let group = (asked.identity, asked.key.as_deref());
            by_payment.entry(group).or_default().push(asked);
        }
        for ((identity, key), asked) in by_payment {
            let paid: Vec<B256> = asked
                .iter()
                .filter_map(|asked| match asked.heard {
                    Heard::Paid { transaction_hash, .. } => Some(transaction_hash),
                    _ => None,
                })
                .collect();
            let is_right = match key {
                None => paid.len() <= 1,
                Some(_) => self.are_one_outcome(identity, &paid, &asked),
            };
            if !is_right {
                let what = format!("under {key:?} callers heard different things: {asked:?}");
                let settlement = self.settlements.get(&identity).map(|settlement| settlement.id);
                self.found.push(super::Violation { invariant: "I7", what, settlement });
            }
        }
    }

    /// One outcome, up to what a reorganization changed.
    fn are_one_outcome(&self, identity: Identity, paid: &[B256], asked: &[&Asked]) -> bool {
        let was_orphaned = |hash: &B256| {
            self.orphaned.of(identity).iter().any(|paid| paid.transaction_hash == *hash)
        };
        let mut hashes = paid.to_vec();
        hashes.sort_unstable();
        hashes.dedup();
        let n_lasting = hashes.iter().filter(|hash| !was_orphaned(hash)).count();
        let mut others: Vec<&Heard> =
            asked.iter().map(|a| &a.heard).filter(|h| !matches!(h, Heard::Paid { .. })).collect();
        others.dedup();
        let is_kind_one = paid.is_empty() || others.is_empty() || paid.iter().all(was_orphaned);
        n_lasting <= 1 && others.len() <= 1 && is_kind_one && !others.contains(&&Heard::Duplicate)
    }

    /// I11: every request whose process lives is answered in time and in a way that a caller
    /// understands, and every caller hears an outcome.
    pub(super) fn every_caller_is_answered(&mut self) {
        let mut last: BTreeMap<(Identity, usize), &Asked> = BTreeMap::new();
        for asked in &self.run.history {
            let is_late = asked.ended_ms.saturating_sub(asked.at_ms) > ANSWERED_WITHIN_MS;
            let is_none =
                matches!(asked.heard, Heard::Silence | Heard::Dropped(_) | Heard::Strange(_));
            if is_late || is_none {
                let settlement = self.settlements.get(&asked.identity).map(|s| s.id);
                let what = format!("a request was not answered as promised: {asked:?}");
                self.found.push(super::Violation { invariant: "I11", what, settlement });
            }
            last.insert((asked.identity, asked.caller), asked);
        }
        for asked in last.into_values().filter(|asked| !asked.heard.is_terminal()) {
            let settlement = self.settlements.get(&asked.identity).map(|settlement| settlement.id);
            let what = format!("a caller heard no outcome: {asked:?}");
            self.found.push(super::Violation { invariant: "I11", what, settlement });
        }
    }
}
