//! Is somebody else sending from our wallet?

/// What the books and the chain say of a wallet's account nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct NonceFacts {
    /// The nonce of the next transaction, by the books.
    pub(in crate::engine) next: u64,
    /// The lowest nonce that the books hold open at the applied head.
    pub(in crate::engine) lowest_open: Option<u64>,
    /// The account's nonce at that head, by the chain.
    pub(in crate::engine) at_head: u64,
    /// The account's nonce at the safe head, if every endpoint answered and all agree.
    pub(in crate::engine) at_safe: Option<u64>,
}

/// What they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum NonceFinding {
    /// Every used nonce is ours.
    Ours,
    /// A nonce was used, and not by bytes of ours as far as the head shows. A reorganization may take
    /// it back: nothing new is signed, and nothing is concluded.
    Suspect,
    /// The same at the safe head, by every endpoint: the key is used elsewhere. Open transactions
    /// below this nonce can never be mined.
    Foreign(u64),
}

/// Judges them.
pub(in crate::engine) fn judge(facts: NonceFacts) -> NonceFinding {
    let first_unused = facts.lowest_open.unwrap_or(facts.next);
    match facts.at_safe {
        Some(at_safe) if at_safe > first_unused => NonceFinding::Foreign(at_safe),
        _ if facts.at_head > first_unused => NonceFinding::Suspect,
        _ => NonceFinding::Ours,
    }
}

#[cfg(test)]
mod tests {
    use super::{NonceFacts, NonceFinding, judge};

    #[test]
    fn a_nonce_is_foreign_only_at_the_safe_head() {
        let facts = NonceFacts { next: 7, lowest_open: Some(5), at_head: 5, at_safe: Some(4) };
        assert_eq!(judge(facts), NonceFinding::Ours);
        let used = NonceFacts { at_head: 6, ..facts };
        assert_eq!(judge(used), NonceFinding::Suspect);
        assert_eq!(judge(NonceFacts { at_safe: None, ..used }), NonceFinding::Suspect);
        assert_eq!(judge(NonceFacts { at_safe: Some(6), ..used }), NonceFinding::Foreign(6));
        let idle = NonceFacts { lowest_open: None, at_head: 7, at_safe: Some(7), ..facts };
        assert_eq!(judge(idle), NonceFinding::Ours);
        assert_eq!(judge(NonceFacts { at_head: 8, ..idle }), NonceFinding::Suspect);
        assert_eq!(
            judge(NonceFacts { at_head: 8, at_safe: Some(8), ..idle }),
            NonceFinding::Foreign(8)
        );
    }
}
