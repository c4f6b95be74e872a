//! One line of a list.

use std::fmt;

use alloy::primitives::Address;
use serde_json::{Value, json};

use crate::domain::{ChainId, MerchantId};

/// The longest note, in characters.
const NOTE_CHARS_MAX: usize = 200;

/// Whose list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The operator's, for every merchant.
    Service,
    /// A merchant's own.
    Merchant(MerchantId),
}

impl Owner {
    /// The word in the names of lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Merchant(_) => "merchant",
        }
    }

    /// Whose, if it is a merchant's.
    pub const fn merchant_id(self) -> Option<MerchantId> {
        match self {
            Self::Service => None,
            Self::Merchant(merchant_id) => Some(merchant_id),
        }
    }
}

impl From<Option<MerchantId>> for Owner {
    fn from(merchant_id: Option<MerchantId>) -> Self {
        merchant_id.map_or(Self::Service, Self::Merchant)
    }
}

/// What part an address has in a payment. In the order in which denials are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Who pays.
    Payer,
    /// Who is paid.
    Payee,
    /// In what.
    Asset,
    /// Who deploys the payer's wallet along with the payment.
    Factory,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Payer, Self::Payee, Self::Asset, Self::Factory];

    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payer => "payer",
            Self::Payee => "payee",
            Self::Asset => "asset",
            Self::Factory => "factory",
        }
    }

    /// The kind of that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a list does with whom it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// It denies them.
    Deny,
    /// It denies everybody else of the kind, on the chains that it is about.
    Allow,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 2] = [Self::Allow, Self::Deny];

    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// The verb of that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }
}

/// A line about to be written, or to be taken out: then its note says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    kind: Kind,
    verb: Verb,
    chain_id: Option<ChainId>,
    address: Address,
    note: String,
}

/// The note is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a note has {NOTE_CHARS_MAX} characters at most, and no control characters")]
pub struct NotAnEntry;

impl NewEntry {
    /// A line about `address`, on one chain or on any.
    pub fn new(
        kind: Kind,
        verb: Verb,
        chain_id: Option<ChainId>,
        address: Address,
        note: &str,
    ) -> Result<Self, NotAnEntry> {
        if note.chars().count() > NOTE_CHARS_MAX || note.chars().any(char::is_control) {
            return Err(NotAnEntry);
        }
        Ok(Self { kind, verb, chain_id, address, note: note.to_owned() })
    }

    /// What part the address has.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What the list does with it.
    pub const fn verb(&self) -> Verb {
        self.verb
    }

    /// On which chain, if not on any.
    pub const fn chain_id(&self) -> Option<ChainId> {
        self.chain_id
    }

    /// Whom it names.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// What people wrote beside it.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// As the audit tells it.
    pub(super) fn shown(&self) -> Value {
        json!({
            "kind": self.kind.as_str(),
            "verb": self.verb.as_str(),
            "network": self.chain_id.map(|chain_id| chain_id.to_string()),
            "address": self.address.to_string(),
            "note": self.note,
        })
    }
}

/// A line that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order of writing.
    pub entry_id: i64,
    /// Whose list.
    pub owner: Owner,
    /// What it says.
    pub line: NewEntry,
    /// When it was written, in RFC 3339.
    pub created_at: String,
}

impl Entry {
    /// As the API and commands tell it.
    pub fn shown(&self) -> Value {
        let line = &self.line;
        json!({
            "entryId": self.entry_id,
            "merchantId": self.owner.merchant_id().map(MerchantId::as_uuid),
            "kind": line.kind.as_str(),
            "verb": line.verb.as_str(),
            "network": line.chain_id.map(|chain_id| chain_id.to_string()),
            "address": line.address.to_string(),
            "note": line.note,
            "createdAt": self.created_at,
        })
    }
}

/// Which lines to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Of these lists.
    pub owner: Owner,
    /// Of this kind only.
    pub kind: Option<Kind>,
    /// With this verb only.
    pub verb: Option<Verb>,
    /// About this address only.
    pub address: Option<Address>,
    /// Written after this one.
    pub after: i64,
    /// How many at most.
    pub limit: u32,
}
