//! What is told of a policy to those who may know.

use serde_json::{Value, json};

use crate::domain::Amount;

use super::{Document, InForce, Purse, Subject};

/// What is in force about an account, and what was spent of its budgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyReport {
    /// About whose money.
    pub subject: Subject,
    /// The newest document.
    pub in_force: InForce,
    /// Its budgets, in the order of [`InForce::purses`], with what is used of each.
    pub purses: Vec<(Purse, Amount)>,
}

impl PolicyReport {
    /// Whether the account is `limited`, may spend nothing, or anything.
    pub const fn state(&self) -> &'static str {
        match &self.in_force.document {
            Document::Policy(_) => "limited",
            Document::Revocation(_) => "revoked",
            Document::Release(_) => "released",
        }
    }

    /// As the API and the command line tell it.
    pub fn to_json(&self) -> Value {
        let Self { subject, in_force, .. } = self;
        let is_limited = matches!(in_force.document, Document::Policy(_));
        json!({
            "policyId": in_force.policy_id,
            "network": subject.chain_id.to_string(),
            "account": subject.account.to_string(),
            "asset": subject.asset.to_string(),
            "state": self.state(),
            "nonce": in_force.document.nonce().to_string(),
            "owner": in_force.owner.to_string(),
            "registeredAt": in_force.registered_at.seconds(),
            "policy": is_limited.then(|| in_force.document.to_json()),
            "budgets": is_limited.then(|| self.budgets()),
        })
    }

    fn budgets(&self) -> Value {
        let budget = |(purse, used): &(Purse, Amount)| {
            json!({
                "spent": used.to_string(),
                "left": purse.left(*used).map(|left| left.to_string()),
            })
        };
        let mut pairs = self.purses.chunks_exact(2).map(|pair| match pair {
            [day, total] => (budget(day), budget(total)),
            _ => (Value::Null, Value::Null),
        });
        let (day, total) = pairs.next().unwrap_or_default();
        let sessions: Value =
            pairs.map(|(day, total)| json!({ "day": day, "total": total })).collect();
        json!({ "day": day, "total": total, "sessions": sessions })
    }
}
