//! The offline checker: what a run has left behind against invariants I1 to I11 of the settlement
//! engine reference (2b). Pure, and of its own mind: it reads logs and rows by itself and trusts
//! nothing of the service's code.

mod books;
mod callers;
mod chain;
mod wallets;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use uuid::Uuid;

use crate::record::{Event, Identity, Run, Settlement};

pub(crate) use chain::Payments;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// `I1` to `I11`.
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
    /// Whom it concerns, if it is about one settlement.
    pub(crate) settlement: Option<Uuid>,
}

/// A run, with what every check looks up.
struct Case<'a> {
    run: &'a Run,
    settlements: HashMap<Identity, &'a Settlement>,
    /// In canonical blocks.
    paid: Payments,
    /// In blocks that reorganizations removed.
    orphaned: Payments,
    found: Vec<Violation>,
}

/// Everything that is wrong with a run.
pub(crate) fn violations(run: &Run) -> Vec<Violation> {
    let rows = &run.books.settlements;
    let mut case = Case {
        run,
        settlements: rows.iter().map(|settlement| (settlement.identity, settlement)).collect(),
        paid: Payments::read(&run.blocks, run.asset),
        orphaned: Payments::read(&run.orphaned, run.asset),
        found: Vec::new(),
    };
    case.one_net_post_per_payment();
    case.books_say_what_the_chain_says();
    case.everything_sent_was_stored();
    case.account_nonces_are_dense();
    case.failed_is_unpaid();
    case.success_had_evidence();
    case.equal_requests_have_equal_answers();
    case.everything_ends_in_time();
    case.epochs_rise();
    case.gas_is_bounded_and_accounted_for();
    case.every_caller_is_answered();
    case.found
}

impl<'a> Case<'a> {
    /// Notes a violation.
    fn wrong(&mut self, invariant: &'static str, what: String) {
        self.found.push(Violation { invariant, what, settlement: None });
    }

    /// Notes a violation of one settlement.
    fn wrong_with(&mut self, invariant: &'static str, settlement: Uuid, what: String) {
        self.found.push(Violation { invariant, what, settlement: Some(settlement) });
    }

    fn events_of(&self, settlement: Uuid) -> Vec<&'a Event> {
        let events = self.run.books.events.iter();
        events.filter(|event| event.settlement == settlement).collect()
    }
}
