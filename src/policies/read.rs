//! From JSON to what was signed. Every complaint names the field.

use alloy::primitives::{Address, Bytes};
use serde_json::{Map, Value};

use crate::{
    domain::{Amount, ChainId},
    protocol::{Expected, address, signature, uint},
};

use super::{
    Document, Ending, Limits, N_PAYEES_MAX, N_SESSIONS_MAX, ReadRequest, Session, SpendingPolicy,
    Subject,
};

/// A document, and the proof that somebody signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDocument {
    /// What was signed.
    pub document: Document,
    /// By whom, chain and owner know.
    pub signature: Bytes,
}

/// A question for the policy in force, and the proof that somebody signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReadRequest {
    /// What was signed.
    pub request: ReadRequest,
    /// By whom, chain and owner know.
    pub signature: Bytes,
}

/// What cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// Reads the body of a registration: `network`, `signature`, and one of `policy`, `revocation` and `release`.
pub fn read_document(body: &Value) -> Result<SignedDocument, Unreadable> {
    let body = Place::root(body)?;
    let chain_id = body.read("network", chain_id)?;
    let signature = body.read("signature", signature)?;
    let [policy, revocation, release] =
        ["policy", "revocation", "release"].map(|key| body.object(key));
    let document = match (policy?, revocation?, release?) {
        (Some(policy), None, None) => Document::Policy(read_policy(&policy, chain_id)?),
        (None, Some(revocation), None) => Document::Revocation(read_ending(&revocation, chain_id)?),
        (None, None, Some(release)) => Document::Release(read_ending(&release, chain_id)?),
        _ => {
            let problem = "expected exactly one of `policy`, `revocation` and `release`";
            return Err(Unreadable(problem.to_owned()));
        }
    };
    Ok(SignedDocument { document, signature })
}

/// Reads the body of a question: `network`, `account`, `asset`, `issuedAt`, `signature`.
pub fn read_question(body: &Value) -> Result<SignedReadRequest, Unreadable> {
    let body = Place::root(body)?;
    let subject = read_subject(&body, body.read("network", chain_id)?)?;
    let request = ReadRequest { subject, issued_at: body.read("issuedAt", uint)? };
    Ok(SignedReadRequest { request, signature: body.read("signature", signature)? })
}

/// Reads a stored document back.
pub(super) fn read_policy_text(
    text: &str,
    chain_id: ChainId,
) -> Result<SpendingPolicy, Unreadable> {
    let value: Value = serde_json::from_str(text).map_err(|error| Unreadable(error.to_string()))?;
    read_policy(&Place::root(&value)?, chain_id)
}

fn read_policy(place: &Place<'_>, chain_id: ChainId) -> Result<SpendingPolicy, Unreadable> {
    let sessions = place.list("sessions", N_SESSIONS_MAX)?;
    let sessions = sessions.iter().map(read_session).collect::<Result<Vec<_>, _>>()?;
    let policy = SpendingPolicy {
        subject: read_subject(place, chain_id)?,
        nonce: place.read("nonce", uint)?,
        owner: place.read("owner", address)?,
        limits: read_limits(place)?,
        sessions,
    };
    let of_sessions = policy.sessions.iter().map(|session| session.limits.payees.len());
    let n_payees = of_sessions.fold(policy.limits.payees.len(), usize::saturating_add);
    if n_payees > N_PAYEES_MAX {
        let problem = format!("{n_payees} payees are named in all; {N_PAYEES_MAX} are the most");
        return Err(place.complaint("payees", &problem));
    }
    Ok(policy)
}

fn read_session(place: &Place<'_>) -> Result<Session, Unreadable> {
    Ok(Session { key: place.read("key", address)?, limits: read_limits(place)? })
}

fn read_limits(place: &Place<'_>) -> Result<Limits, Unreadable> {
    let amount = |key| place.read(key, uint).map(Amount::from_base_units);
    let limits = Limits {
        per_payment: amount("perPayment")?,
        per_day: amount("perDay")?,
        total: amount("total")?,
        payees: place.addresses("payees")?,
        valid_after: place.read("validAfter", uint)?,
        valid_before: place.read("validBefore", uint)?,
    };
    if limits.valid_after >= limits.valid_before {
        return Err(place.complaint("validBefore", "expected a time after validAfter"));
    }
    Ok(limits)
}

fn read_ending(place: &Place<'_>, chain_id: ChainId) -> Result<Ending, Unreadable> {
    Ok(Ending { subject: read_subject(place, chain_id)?, nonce: place.read("nonce", uint)? })
}

fn read_subject(place: &Place<'_>, chain_id: ChainId) -> Result<Subject, Unreadable> {
    let account: Address = place.read("account", address)?;
    if account.is_zero() {
        return Err(place.complaint("account", "expected an account that can pay"));
    }
    Ok(Subject { chain_id, account, asset: place.read("asset", address)? })
}

fn chain_id(value: &Value) -> Result<ChainId, Expected> {
    let read = value.as_str().and_then(|text| text.parse().ok());
    read.ok_or("a network in the words of CAIP-2, such as eip155:8453")
}

/// An object, and where it stands.
struct Place<'a> {
    path: String,
    members: &'a Map<String, Value>,
}

impl<'a> Place<'a> {
    fn root(value: &'a Value) -> Result<Self, Unreadable> {
        let members = value.as_object();
        let members = members.ok_or_else(|| Unreadable("expected a JSON object".to_owned()))?;
        Ok(Self { path: String::new(), members })
    }

    fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'a Value) -> Result<T, Expected>,
    ) -> Result<T, Unreadable> {
        static ABSENT: Value = Value::Null;
        let value = self.members.get(key).unwrap_or(&ABSENT);
        read(value).map_err(|expected| self.complaint(key, &format!("expected {expected}")))
    }

    /// The object at `key`, if there is something.
    fn object(&self, key: &str) -> Result<Option<Self>, Unreadable> {
        if self.members.get(key).is_none_or(Value::is_null) {
            return Ok(None);
        }
        let members = self.read(key, |value| value.as_object().ok_or("an object"))?;
        Ok(Some(Self { path: self.path_of(key), members }))
    }

    /// The objects at `key`, `n_max` at most.
    fn list(&self, key: &str, n_max: usize) -> Result<Vec<Self>, Unreadable> {
        let items = self.read(key, |value| value.as_array().ok_or("a list"))?;
        if items.len() > n_max {
            let problem = format!("there are {}; {n_max} are the most", items.len());
            return Err(self.complaint(key, &problem));
        }
        let place = |(index, item): (usize, &'a Value)| {
            let path = format!("{}[{index}]", self.path_of(key));
            match item.as_object() {
                Some(members) => Ok(Self { path, members }),
                None => Err(Unreadable(format!("{path}: expected an object"))),
            }
        };
        items.iter().enumerate().map(place).collect()
    }

    fn addresses(&self, key: &str) -> Result<Vec<Address>, Unreadable> {
        let items = self.read(key, |value| value.as_array().ok_or("a list of addresses"))?;
        if items.len() > N_PAYEES_MAX {
            let problem = format!("there are {}; {N_PAYEES_MAX} are the most", items.len());
            return Err(self.complaint(key, &problem));
        }
        let read = |(index, item): (usize, &Value)| -> Result<Address, Unreadable> {
            let complaint = |expected| {
                self.complaint(&format!("{key}[{index}]"), &format!("expected {expected}"))
            };
            address(item).map_err(complaint)
        };
        items.iter().enumerate().map(read).collect()
    }

    fn complaint(&self, key: &str, problem: &str) -> Unreadable {
        Unreadable(format!("{}: {problem}", self.path_of(key)))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
