//! Whom a payment names, and who forbids one of them.

use std::fmt;

use alloy::primitives::Address;

use crate::domain::ChainId;

use super::{Kind, Owner, Verb};

/// Everybody whom a payment names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parties {
    /// Where.
    pub chain_id: ChainId,
    /// Who pays.
    pub payer: Address,
    /// Who is paid.
    pub payee: Address,
    /// In what.
    pub asset: Address,
    /// Who deploys the payer's wallet, if somebody has to.
    pub factory: Option<Address>,
}

impl Parties {
    /// All of them, in the order in which denials are told.
    pub fn named(&self) -> impl Iterator<Item = (Kind, Address)> {
        let certain =
            [(Kind::Payer, self.payer), (Kind::Payee, self.payee), (Kind::Asset, self.asset)];
        certain.into_iter().chain(self.factory.map(|factory| (Kind::Factory, factory)))
    }
}

/// A party that is denied, and what denies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What part it has.
    pub kind: Kind,
    /// Who it is.
    pub address: Address,
    /// What denies it.
    pub denier: Denier,
    /// The version of that.
    pub version: String,
}

/// What denies a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denier {
    /// A list.
    List {
        /// Whose.
        owner: Owner,
        /// Of whom.
        kind: Kind,
        /// By naming it, or by not naming it.
        verb: Verb,
    },
    /// The sanctions file.
    SanctionsFile,
    /// The sanctions oracle at that address of the payment's chain.
    Oracle(Address),
}

impl Denier {
    /// Whether the payment's merchant itself wants it so; otherwise the operator does.
    pub const fn is_merchants(&self) -> bool {
        matches!(self, Self::List { owner: Owner::Merchant(_), .. })
    }
}

impl fmt::Display for Denier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List { owner, kind, verb } => {
                write!(f, "{}/{kind}/{}", owner.as_str(), verb.as_str())
            }
            Self::SanctionsFile => f.write_str("sanctions-file"),
            Self::Oracle(address) => write!(f, "oracle:{address}"),
        }
    }
}
