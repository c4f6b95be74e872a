//! Whether a payment is within a policy, as far as that can be told without knowing what was spent, and
//! which budgets it is to be counted in.
//!
//! Two steps around one look at the counters, as in `verify`: [`InForce::plan`] judges what the document
//! alone decides and names the budgets, [`Plan::choose`] judges by what is used of them.

use alloy::primitives::Address;
use uuid::Uuid;

use crate::domain::{Amount, InvalidReason, Refusal, UnixTime};

use super::{Document, Limits, Session, SpendingPolicy};

/// The newest document about an account, and what it is counted under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// What was signed.
    pub document: Document,
    /// Its own id.
    pub policy_id: Uuid,
    /// The id of everything that was ever signed about the same account and asset.
    pub account_id: Uuid,
    /// Who may sign what comes next.
    pub owner: Address,
    /// When it was registered.
    pub registered_at: UnixTime,
}

/// A payment, as a policy looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spending<'a> {
    /// Who is paid.
    pub payee: Address,
    /// How much.
    pub amount: Amount,
    /// By whose keys it may have been signed.
    pub signers: &'a [Address],
    /// The time of the block that it was verified at: the clock that the token judges it by, the same
    /// for every replica.
    pub at: UnixTime,
}

/// How long a budget lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// From midnight to midnight, UTC.
    Day,
    /// As long as its rule.
    Total,
}

/// A budget, and how much may be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purse {
    /// What it is counted under.
    pub rule_id: Uuid,
    /// Which of that rule's budgets it is.
    pub subject: String,
    /// When it begins anew.
    pub span: Span,
    /// How much; [`Amount::MAX`] is counted and never full.
    pub limit: Amount,
}

/// The budgets of a payment that its policy's document does not forbid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    amount: Amount,
    /// Those of the policy.
    common: [Purse; 2],
    /// Those of each session that it may belong to, in the document's order. Empty if the policy has none.
    sessions: Vec<[Purse; 2]>,
}

impl InForce {
    /// What the document says of a payment: why not, or which budgets decide. `None` if there are no limits.
    ///
    /// Reasons come in their order: first who is paid, then the time, then the amounts.
    pub fn plan(&self, spending: &Spending<'_>) -> Result<Option<Plan>, Refusal> {
        let policy = match &self.document {
            Document::Release(_) => return Ok(None),
            Document::Revocation(_) => {
                return refuse(
                    InvalidReason::PolicyExpired,
                    "the owner of the paying account has revoked its spending policy",
                );
            }
            Document::Policy(policy) => policy,
        };
        let mut sessions = applicable(policy, spending.signers);
        if !policy.limits.pay(spending.payee) {
            return refuse_payee(spending.payee);
        }
        if !sessions.is_empty() {
            sessions.retain(|(_, session)| session.limits.pay(spending.payee));
            if sessions.is_empty() {
                return refuse_payee(spending.payee);
            }
        }
        if !policy.limits.are_open(spending.at) {
            return refuse(
                InvalidReason::PolicyExpired,
                format!(
                    "the spending policy of the paying account is valid from {} until before {}, and the \
                     newest block is of {}",
                    policy.limits.valid_after, policy.limits.valid_before, spending.at
                ),
            );
        }
        let has_sessions = !policy.sessions.is_empty();
        sessions.retain(|(_, session)| session.limits.are_open(spending.at));
        if has_sessions && sessions.is_empty() {
            return refuse(
                InvalidReason::PolicyExpired,
                "no session of the paying account's spending policy is open for the key that signed",
            );
        }
        check_payment(&policy.limits, spending.amount, "the spending policy")?;
        let largest = sessions.iter().map(|(_, session)| session.limits.per_payment).max();
        sessions.retain(|(_, session)| session.limits.per_payment >= spending.amount);
        if let Some(largest) = largest.filter(|_| sessions.is_empty()) {
            return refuse(
                InvalidReason::PolicyExceeded,
                format!(
                    "the session allows payments of {largest} base units at most, and {} is asked",
                    spending.amount
                ),
            );
        }
        Ok(Some(Plan {
            amount: spending.amount,
            common: self.common_purses(&policy.limits),
            sessions: sessions
                .into_iter()
                .map(|(index, session)| self.session_purses(index, &session.limits))
                .collect(),
        }))
    }

    /// Every budget that it has: of the policy for the day and in total, then the same of each session.
    pub fn purses(&self) -> Vec<Purse> {
        let Document::Policy(policy) = &self.document else { return Vec::new() };
        let of_sessions = policy.sessions.iter().enumerate();
        let of_sessions =
            of_sessions.flat_map(|(index, session)| self.session_purses(index, &session.limits));
        self.common_purses(&policy.limits).into_iter().chain(of_sessions).collect()
    }

    /// What was spent today counts for the next policy too; the total is this policy's.
    fn common_purses(&self, limits: &Limits) -> [Purse; 2] {
        let purse = |rule_id, span, limit| Purse { rule_id, subject: String::new(), span, limit };
        [
            purse(self.account_id, Span::Day, limits.per_day),
            purse(self.policy_id, Span::Total, limits.total),
        ]
    }

    fn session_purses(&self, index: usize, limits: &Limits) -> [Purse; 2] {
        let purse = |span, limit| Purse {
            rule_id: self.policy_id,
            subject: format!("session {index}"),
            span,
            limit,
        };
        [purse(Span::Day, limits.per_day), purse(Span::Total, limits.total)]
    }
}

impl Plan {
    /// Every budget whose use has to be known.
    pub fn purses(&self) -> impl Iterator<Item = &Purse> {
        self.common.iter().chain(self.sessions.iter().flatten())
    }

    /// The budgets to count the payment in, by what is used of [`Plan::purses`], in their order. Of several
    /// sessions, the first that has enough.
    pub fn choose(&self, used: &[Amount]) -> Result<Vec<Purse>, Refusal> {
        // A budget that nobody knows anything of is full.
        let mut used = used.iter().copied().chain(std::iter::repeat(Amount::MAX));
        let mut lacking = None;
        let mut chosen = Vec::new();
        let mut look = |purses: &[Purse; 2], chosen: &mut Vec<Purse>| {
            let full = purses.iter().zip(used.by_ref()).fold(None, |full, (purse, used)| {
                full.or_else(|| (!purse.holds(used, self.amount)).then_some((purse.clone(), used)))
            });
            if full.is_none() {
                chosen.extend_from_slice(purses);
            }
            full
        };
        if let Some((purse, used)) = look(&self.common, &mut chosen) {
            return Err(purse.full(used, self.amount));
        }
        let n_common = chosen.len();
        for session in &self.sessions {
            let full = look(session, &mut chosen);
            if chosen.len() > n_common {
                return Ok(chosen);
            }
            lacking = lacking.or(full);
        }
        match lacking {
            Some((purse, used)) => Err(purse.full(used, self.amount)),
            None => Ok(chosen),
        }
    }
}

impl Purse {
    fn holds(&self, used: Amount, amount: Amount) -> bool {
        self.limit == Amount::MAX
            || used.checked_add(amount).is_some_and(|together| together <= self.limit)
    }

    /// How much may still be spent of it; `None` if it has no limit.
    pub fn left(&self, used: Amount) -> Option<Amount> {
        let left = self.limit.base_units().saturating_sub(used.base_units());
        (self.limit != Amount::MAX).then(|| Amount::from_base_units(left))
    }

    fn full(&self, used: Amount, amount: Amount) -> Refusal {
        let whose = if self.subject.is_empty() { "spending policy" } else { "session" };
        let span = match self.span {
            Span::Day => "a day (UTC)",
            Span::Total => "in total",
        };
        let left = self.left(used).unwrap_or(Amount::MAX);
        let message = format!(
            "the {whose} allows {} base units {span}, {left} are left, and {amount} is asked",
            self.limit
        );
        Refusal::new(InvalidReason::PolicyExceeded, message)
    }
}

impl Limits {
    fn pay(&self, payee: Address) -> bool {
        self.payees.is_empty() || self.payees.contains(&payee)
    }

    fn are_open(&self, at: UnixTime) -> bool {
        self.valid_after <= at.as_u256() && at.as_u256() < self.valid_before
    }
}

/// The sessions that are for one of those keys, with their places.
fn applicable<'a>(policy: &'a SpendingPolicy, signers: &[Address]) -> Vec<(usize, &'a Session)> {
    let is_for = |session: &Session| session.key.is_zero() || signers.contains(&session.key);
    policy.sessions.iter().enumerate().filter(|(_, session)| is_for(session)).collect()
}

fn check_payment(limits: &Limits, amount: Amount, whose: &str) -> Result<(), Refusal> {
    if amount <= limits.per_payment {
        return Ok(());
    }
    let largest = limits.per_payment;
    refuse(
        InvalidReason::PolicyExceeded,
        format!("{whose} allows payments of {largest} base units at most, and {amount} is asked"),
    )
}

fn refuse_payee<T>(payee: Address) -> Result<T, Refusal> {
    refuse(
        InvalidReason::PolicyPayee,
        format!("the spending policy of the paying account does not allow payments to {payee}"),
    )
}

fn refuse<T>(reason: InvalidReason, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(reason, message))
}

#[cfg(test)]
mod tests;
