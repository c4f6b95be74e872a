//! What owners sign, and the EIP-712 digests of it.

use alloy::{
    primitives::{Address, B256, U256},
    sol_types::{Eip712Domain, SolStruct as _, eip712_domain},
};
use serde_json::{Value, json};

use crate::domain::{Amount, ChainId};

/// How many sessions a policy may have: each is looked at with every payment.
pub const N_SESSIONS_MAX: usize = 16;
/// How many payees a policy may name, those of its sessions included.
pub const N_PAYEES_MAX: usize = 100;

/// The words that are signed. Their names and order are part of the digests.
mod signed {
    alloy::sol! {
        struct Session {
            address key;
            uint256 perPayment;
            uint256 perDay;
            uint256 total;
            address[] payees;
            uint256 validAfter;
            uint256 validBefore;
        }
        struct SpendingPolicy {
            address account;
            address asset;
            uint256 nonce;
            address owner;
            uint256 perPayment;
            uint256 perDay;
            uint256 total;
            address[] payees;
            uint256 validAfter;
            uint256 validBefore;
            Session[] sessions;
        }
        struct SpendingPolicyRevocation {
            address account;
            address asset;
            uint256 nonce;
        }
        struct SpendingPolicyRelease {
            address account;
            address asset;
            uint256 nonce;
        }
        struct ReadSpendingPolicy {
            address account;
            address asset;
            uint256 issuedAt;
        }
    }
}

/// An account's money in one asset on one chain: what a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Where.
    pub chain_id: ChainId,
    /// Who pays.
    pub account: Address,
    /// In what.
    pub asset: Address,
}

/// What may be spent, by everybody or in one session. [`Amount::MAX`] is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most that one payment may move.
    pub per_payment: Amount,
    /// The most between two midnights, UTC.
    pub per_day: Amount,
    /// The most since the policy was registered.
    pub total: Amount,
    /// Who may be paid; anybody, if it is empty.
    pub payees: Vec<Address>,
    /// Unix seconds from which on it is open.
    pub valid_after: U256,
    /// Unix seconds from which on it is not open any more.
    pub valid_before: U256,
}

/// A part of a policy with a budget of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Whose signatures it is for; zero is for any.
    pub key: Address,
    /// What may be spent in it.
    pub limits: Limits,
}

/// What an owner allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendingPolicy {
    /// Whose money.
    pub subject: Subject,
    /// Orders what is signed about one subject.
    pub nonce: U256,
    /// Who may replace it or end it; zero is the account itself.
    pub owner: Address,
    /// What may be spent, however it is signed.
    pub limits: Limits,
    /// If there are any, each payment has to belong to one.
    pub sessions: Vec<Session>,
}

/// The end of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Whose money.
    pub subject: Subject,
    /// Orders what is signed about one subject.
    pub nonce: U256,
}

/// Something that an owner signs.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and most are policies")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// From now on, these limits.
    Policy(SpendingPolicy),
    /// From now on, nothing may be spent, until the owner signs another policy or a release.
    Revocation(Ending),
    /// From now on, there are no limits, and the account itself signs the next policy.
    Release(Ending),
}

/// Which kind of document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Limits.
    Policy,
    /// Nothing.
    Revocation,
    /// No limits.
    Release,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Policy, Self::Revocation, Self::Release];

    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Revocation => "revocation",
            Self::Release => "release",
        }
    }
}

/// A question for the policy in force, which its owner or the account signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// About what.
    pub subject: Subject,
    /// When it was signed, in Unix seconds.
    pub issued_at: U256,
}

impl Document {
    /// What it is about.
    pub const fn subject(&self) -> Subject {
        match self {
            Self::Policy(policy) => policy.subject,
            Self::Revocation(ending) | Self::Release(ending) => ending.subject,
        }
    }

    /// Its place among the documents of its subject.
    pub const fn nonce(&self) -> U256 {
        match self {
            Self::Policy(policy) => policy.nonce,
            Self::Revocation(ending) | Self::Release(ending) => ending.nonce,
        }
    }

    /// Which kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Policy(_) => Kind::Policy,
            Self::Revocation(_) => Kind::Revocation,
            Self::Release(_) => Kind::Release,
        }
    }

    /// Who may sign what comes after it, if `owner` may sign this one.
    pub fn next_owner(&self, owner: Address) -> Address {
        match self {
            Self::Policy(policy) if policy.owner.is_zero() => policy.subject.account,
            Self::Policy(policy) => policy.owner,
            Self::Revocation(_) => owner,
            Self::Release(ending) => ending.subject.account,
        }
    }

    /// The EIP-712 digest that is signed.
    pub fn digest(&self) -> B256 {
        let domain = domain(self.subject().chain_id);
        match self {
            Self::Policy(policy) => policy.signed().eip712_signing_hash(&domain),
            Self::Revocation(Ending { subject, nonce }) => signed::SpendingPolicyRevocation {
                account: subject.account,
                asset: subject.asset,
                nonce: *nonce,
            }
            .eip712_signing_hash(&domain),
            Self::Release(Ending { subject, nonce }) => signed::SpendingPolicyRelease {
                account: subject.account,
                asset: subject.asset,
                nonce: *nonce,
            }
            .eip712_signing_hash(&domain),
        }
    }

    /// Its fields, as they are signed.
    pub fn to_json(&self) -> Value {
        let (subject, nonce) = (self.subject(), self.nonce().to_string());
        let ending = json!({
            "account": subject.account.to_string(),
            "asset": subject.asset.to_string(),
            "nonce": nonce,
        });
        let Self::Policy(policy) = self else { return ending };
        let sessions: Value = policy.sessions.iter().map(Session::to_json).collect();
        let rest = json!({ "owner": policy.owner.to_string(), "sessions": sessions });
        joined([ending, policy.limits.to_json(), rest])
    }
}

impl SpendingPolicy {
    fn signed(&self) -> signed::SpendingPolicy {
        let limits = &self.limits;
        signed::SpendingPolicy {
            account: self.subject.account,
            asset: self.subject.asset,
            nonce: self.nonce,
            owner: self.owner,
            perPayment: limits.per_payment.base_units(),
            perDay: limits.per_day.base_units(),
            total: limits.total.base_units(),
            payees: limits.payees.clone(),
            validAfter: limits.valid_after,
            validBefore: limits.valid_before,
            sessions: self.sessions.iter().map(Session::signed).collect(),
        }
    }
}

impl Session {
    fn signed(&self) -> signed::Session {
        let limits = &self.limits;
        signed::Session {
            key: self.key,
            perPayment: limits.per_payment.base_units(),
            perDay: limits.per_day.base_units(),
            total: limits.total.base_units(),
            payees: limits.payees.clone(),
            validAfter: limits.valid_after,
            validBefore: limits.valid_before,
        }
    }

    fn to_json(&self) -> Value {
        joined([json!({ "key": self.key.to_string() }), self.limits.to_json()])
    }
}

impl Limits {
    fn to_json(&self) -> Value {
        json!({
            "perPayment": self.per_payment.to_string(),
            "perDay": self.per_day.to_string(),
            "total": self.total.to_string(),
            "payees": self.payees.iter().map(Address::to_string).collect::<Vec<_>>(),
            "validAfter": self.valid_after.to_string(),
            "validBefore": self.valid_before.to_string(),
        })
    }
}

impl ReadRequest {
    /// The EIP-712 digest that is signed.
    pub fn digest(&self) -> B256 {
        let Subject { chain_id, account, asset } = self.subject;
        signed::ReadSpendingPolicy { account, asset, issuedAt: self.issued_at }
            .eip712_signing_hash(&domain(chain_id))
    }
}

/// One object with the members of all.
fn joined<const N: usize>(objects: [Value; N]) -> Value {
    let members = objects.into_iter().filter_map(|object| match object {
        Value::Object(members) => Some(members),
        _ => None,
    });
    Value::Object(members.flatten().collect())
}

/// Every document is of one chain. It names no facilitator: what is signed counts at each that is given it.
fn domain(chain_id: ChainId) -> Eip712Domain {
    eip712_domain! {
        name: "Quittance",
        version: "1",
        chain_id: chain_id.eip155(),
    }
}

/// The domain and the types, as wallets take them (`eth_signTypedData_v4`). The chain's number is missing in
/// the domain.
pub fn signing_types() -> Value {
    let members = |encoded: &str| -> Value {
        let fields = encoded.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
        let member = |field: &str| {
            let (kind, name) = field.split_once(' ')?;
            Some(json!({ "name": name, "type": kind }))
        };
        fields.split(',').filter_map(member).collect()
    };
    json!({
        "domain": { "name": "Quittance", "version": "1" },
        "types": {
            "SpendingPolicy": members(&signed::SpendingPolicy::eip712_root_type()),
            "Session": members(&signed::Session::eip712_root_type()),
            "SpendingPolicyRevocation": members(&signed::SpendingPolicyRevocation::eip712_root_type()),
            "SpendingPolicyRelease": members(&signed::SpendingPolicyRelease::eip712_root_type()),
            "ReadSpendingPolicy": members(&signed::ReadSpendingPolicy::eip712_root_type()),
        },
    })
}
