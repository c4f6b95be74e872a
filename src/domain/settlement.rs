//! The life of a settlement.

use std::fmt;

use uuid::Uuid;

/// Our promise to settle one payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettlementId(Uuid);

impl SettlementId {
    /// Wraps the id that the database or the clock made.
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as the database stores it.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for SettlementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a settlement stands. Each arrow is one row in `event`, written with it:
///
/// ```text
/// claimed ──▶ submitted ──▶ included ──▶ safe ──▶ finalized
///    ▲ │          │ │ ▲        │           │
///    │ │          │ │ └────────┴───────────┘   reorg: the block is gone, the signed bytes are not
///    │ │          │ │                          (to claimed if none of the bytes were ours)
///    └─┼──────────┘ │                          mined without evidence, and still payable
///      └────────────┴──▶ failed                proven: it can no longer be paid
///                          │
///                          └──▶ included       someone else submitted the authorization in time
/// ```
///
/// `claimed` may also become `included` at once, when somebody else submits the authorization first.
/// A revert alone proves nothing: anyone may submit an EIP-3009 authorization, so ours can revert
/// because another copy was mined first. Only logs in a canonical block move money here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SettlementStatus {
    /// Verified and recorded under its unique key; no transaction of ours carries it.
    Claimed,
    /// Signed bytes are stored; from here on the outcome is unknown until a block says otherwise.
    Submitted,
    /// Evidence stands in a canonical block.
    Included,
    /// That block is at or below the chain's `safe` head.
    Safe,
    /// That block is at or below the chain's `finalized` head. Nothing follows.
    Finalized,
    /// Proven at a block that it cannot be paid. Money has not moved.
    Failed,
}

/// How deep the evidence of a payment must stand before its caller is told success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Depth {
    /// In a canonical block. A reorganization can take it back.
    #[default]
    Included,
    /// At or below the chain's `safe` head.
    Safe,
    /// At or below the chain's `finalized` head.
    Finalized,
}

/// No depth is called so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a depth is included, safe or finalized")]
pub struct UnknownDepth;

impl Depth {
    /// Every depth, the shallowest first.
    pub const ALL: [Self; 3] = [Self::Included, Self::Safe, Self::Finalized];

    /// The word in headers, in the database and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Included => "included",
            Self::Safe => "safe",
            Self::Finalized => "finalized",
        }
    }

    /// Reads that word.
    pub fn parse(text: &str) -> Result<Self, UnknownDepth> {
        Self::ALL.into_iter().find(|depth| depth.as_str() == text).ok_or(UnknownDepth)
    }
}

/// A status that the database should not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown settlement status {0:?}")]
pub struct UnknownStatus(String);

impl SettlementStatus {
    /// Whether `next` may directly follow `self`.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Claimed => matches!(next, Self::Submitted | Self::Included | Self::Failed),
            Self::Submitted => matches!(next, Self::Claimed | Self::Included | Self::Failed),
            Self::Included => matches!(next, Self::Safe | Self::Submitted | Self::Claimed),
            Self::Safe => matches!(next, Self::Finalized | Self::Submitted | Self::Claimed),
            Self::Failed => matches!(next, Self::Included),
            Self::Finalized => false,
        }
    }

    /// The word in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Submitted => "submitted",
            Self::Included => "included",
            Self::Safe => "safe",
            Self::Finalized => "finalized",
            Self::Failed => "failed",
        }
    }

    /// Reads the word in the database.
    pub fn parse(text: &str) -> Result<Self, UnknownStatus> {
        match text {
            "claimed" => Ok(Self::Claimed),
            "submitted" => Ok(Self::Submitted),
            "included" => Ok(Self::Included),
            "safe" => Ok(Self::Safe),
            "finalized" => Ok(Self::Finalized),
            "failed" => Ok(Self::Failed),
            other => Err(UnknownStatus(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SettlementStatus::{self, Claimed, Failed, Finalized, Included, Safe, Submitted};

    const ALL: [SettlementStatus; 6] = [Claimed, Submitted, Included, Safe, Finalized, Failed];
    const ALLOWED: [(SettlementStatus, SettlementStatus); 13] = [
        (Claimed, Submitted),
        (Claimed, Included),
        (Claimed, Failed),
        (Submitted, Claimed),
        (Submitted, Included),
        (Submitted, Failed),
        (Included, Safe),
        (Included, Submitted),
        (Included, Claimed),
        (Safe, Finalized),
        (Safe, Submitted),
        (Safe, Claimed),
        (Failed, Included),
    ];

    #[test]
    fn every_pair_of_states_is_either_drawn_or_refused() {
        for from in ALL {
            for to in ALL {
                let allowed = ALLOWED.contains(&(from, to));
                assert_eq!(from.may_become(to), allowed, "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn every_status_has_one_word() {
        for status in ALL {
            assert_eq!(SettlementStatus::parse(status.as_str()), Ok(status));
        }
        assert!(SettlementStatus::parse("done").is_err());
    }
}
