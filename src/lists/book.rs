//! The lists of one owner in memory: what they say costs the same however long they are.

use std::collections::HashSet;

use alloy::primitives::Address;

use crate::domain::ChainId;

use super::{Denial, Denier, Kind, NewEntry, Owner, Parties, Verb};

/// How many entries the whole service's lists may have together; 100 bytes each in every process.
const N_SERVICE_ENTRIES_MAX: u32 = 250_000;
/// How many entries a merchant's lists may have together.
const N_MERCHANT_ENTRIES_MAX: u32 = 10_000;

/// How many entries the lists of the service, and those of a merchant, may have together.
pub const N_ENTRIES_MAX: (u32, u32) = (N_SERVICE_ENTRIES_MAX, N_MERCHANT_ENTRIES_MAX);

impl Owner {
    /// How many entries its lists may have together.
    pub const fn n_entries_max(self) -> u32 {
        match self {
            Self::Service => N_SERVICE_ENTRIES_MAX,
            Self::Merchant(_) => N_MERCHANT_ENTRIES_MAX,
        }
    }
}

/// The lists of one owner, at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Book {
    version: u64,
    named: HashSet<(Kind, Verb, Option<ChainId>, Address)>,
    /// Where only those who are named are allowed.
    closed: HashSet<(Kind, Option<ChainId>)>,
}

impl Book {
    pub(super) fn of(version: u64, entries: impl IntoIterator<Item = NewEntry>) -> Self {
        let mut book = Self { version, ..Self::default() };
        for entry in entries {
            let (kind, chain_id) = (entry.kind(), entry.chain_id());
            book.named.insert((kind, entry.verb(), chain_id, entry.address()));
            if entry.verb() == Verb::Allow {
                book.closed.insert((kind, chain_id));
            }
        }
        book
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn n_entries(&self) -> usize {
        self.named.len()
    }

    /// The first party that the lists deny. They are those of `owner`.
    pub(super) fn denies(&self, owner: Owner, parties: &Parties) -> Option<Denial> {
        parties.named().find_map(|(kind, address)| {
            let verb = self.verb_against(kind, address, parties.chain_id)?;
            let denier = Denier::List { owner, kind, verb };
            Some(Denial { kind, address, denier, version: self.version.to_string() })
        })
    }

    fn verb_against(&self, kind: Kind, address: Address, chain_id: ChainId) -> Option<Verb> {
        let chains = [None, Some(chain_id)];
        let is_named =
            |verb| chains.iter().any(|chain| self.named.contains(&(kind, verb, *chain, address)));
        if is_named(Verb::Deny) {
            return Some(Verb::Deny);
        }
        let is_closed = chains.iter().any(|chain| self.closed.contains(&(kind, *chain)));
        (is_closed && !is_named(Verb::Allow)).then_some(Verb::Allow)
    }
}
