//! What to do about a transaction that no block has taken yet.
//!
//! Its bytes are sent again with every block. It is replaced only by a better offer for the same
//! account nonce, and it is cancelled only when it has nobody left to pay.

use crate::chain::{FeeFacts, SendAnswer};

use super::fees::{FeeLimits, Fees, bump, offer};

/// How many blocks may pass a transaction by before a better offer is made, or a useless one is
/// cancelled.
pub(in crate::engine) const PATIENCE_BLOCKS: u64 = 3;

/// An open transaction, as far as this decision is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Stuck<'a> {
    /// How many blocks were built since its newest attempt was handed over first.
    pub(in crate::engine) n_blocks: u64,
    /// Whether no earlier nonce of the wallet is open: the others wait for that one.
    pub(in crate::engine) is_first: bool,
    /// Whether its newest attempt pays nobody already.
    pub(in crate::engine) is_cancelled: bool,
    /// Whether everything it carries is decided without it.
    pub(in crate::engine) is_useless: bool,
    /// The highest offer of each kind over all its attempts.
    pub(in crate::engine) offered: Fees,
    /// What the endpoints said when it was handed over last.
    pub(in crate::engine) answer: Option<&'a SendAnswer>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Remedy {
    /// Send the same bytes again.
    Resend,
    /// Store and send the same call with a better offer.
    Bump(Fees),
    /// Store and send a call that pays nobody, with a better offer.
    Cancel(Fees),
    /// A better offer is needed and would pass the limit: send the same bytes again, and tell people.
    AtLimit,
}

/// Decides, once for each block.
pub(in crate::engine) fn remedy(stuck: Stuck<'_>, market: FeeFacts, limits: FeeLimits) -> Remedy {
    let is_late = stuck.n_blocks >= PATIENCE_BLOCKS;
    let is_below_base_fee = stuck.offered.fee_wei_max < market.base_fee_wei;
    let is_outbid = is_late
        && stuck.is_first
        && (matches!(
            stuck.answer,
            Some(SendAnswer::Underpriced | SendAnswer::ReplacementUnderpriced)
        ) || offer(market, limits)
            .is_ok_and(|asked| asked.priority_fee_wei_max > stuck.offered.priority_fee_wei_max));
    let is_refused = stuck.n_blocks >= 1 && matches!(stuck.answer, Some(SendAnswer::Underpriced));
    let cancels = is_late && stuck.is_useless && !stuck.is_cancelled;
    if !(is_below_base_fee || is_outbid || is_refused || cancels) {
        return Remedy::Resend;
    }
    match bump(stuck.offered, market, limits) {
        Some(fees) if cancels => Remedy::Cancel(fees),
        Some(fees) => Remedy::Bump(fees),
        None => Remedy::AtLimit,
    }
}

#[cfg(test)]
mod tests {
    use super::{FeeFacts, FeeLimits, Fees, PATIENCE_BLOCKS, Remedy, SendAnswer, Stuck, remedy};

    const LIMITS: FeeLimits =
        FeeLimits { fee_wei_max: 1_000_000_000, priority_fee_wei_max: 100_000_000 };
    const MARKET: FeeFacts = FeeFacts { base_fee_wei: 5_000_000, priority_fee_wei: 0 };
    const OFFERED: Fees = Fees { fee_wei_max: 51_000_000, priority_fee_wei_max: 1_000_000 };
    const STUCK: Stuck<'static> = Stuck {
        n_blocks: PATIENCE_BLOCKS,
        is_first: true,
        is_cancelled: false,
        is_useless: false,
        offered: OFFERED,
        answer: Some(&SendAnswer::AlreadyKnown),
    };

    #[test]
    fn a_full_block_is_no_reason_for_a_better_offer() {
        for n_blocks in [0, 1, PATIENCE_BLOCKS, 1_000] {
            assert_eq!(remedy(Stuck { n_blocks, ..STUCK }, MARKET, LIMITS), Remedy::Resend);
        }
        let answer = Some(&SendAnswer::InsufficientFunds);
        assert_eq!(remedy(Stuck { answer, ..STUCK }, MARKET, LIMITS), Remedy::Resend);
    }

    #[test]
    fn only_the_first_is_outbid_and_only_after_some_blocks() {
        let market = FeeFacts { priority_fee_wei: 2_000_000, ..MARKET };
        assert!(matches!(remedy(STUCK, market, LIMITS), Remedy::Bump(_)));
        for stuck in
            [Stuck { n_blocks: PATIENCE_BLOCKS - 1, ..STUCK }, Stuck { is_first: false, ..STUCK }]
        {
            assert_eq!(remedy(stuck, market, LIMITS), Remedy::Resend);
        }
    }

    #[test]
    fn what_cannot_be_mined_at_its_price_is_bumped_at_once() {
        let market = FeeFacts { base_fee_wei: 60_000_000, ..MARKET };
        let stuck = Stuck { n_blocks: 0, is_first: false, ..STUCK };
        assert!(matches!(remedy(stuck, market, LIMITS), Remedy::Bump(_)));
        let market = FeeFacts { base_fee_wei: LIMITS.fee_wei_max, ..MARKET };
        assert_eq!(remedy(stuck, market, LIMITS), Remedy::AtLimit);
        let answer = Some(&SendAnswer::Underpriced);
        assert!(matches!(
            remedy(Stuck { n_blocks: 1, answer, ..STUCK }, MARKET, LIMITS),
            Remedy::Bump(_)
        ));
    }

    #[test]
    fn only_what_pays_nobody_any_more_is_cancelled_and_once() {
        let useless = Stuck { is_useless: true, ..STUCK };
        assert!(matches!(remedy(useless, MARKET, LIMITS), Remedy::Cancel(_)));
        assert_eq!(
            remedy(Stuck { n_blocks: PATIENCE_BLOCKS - 1, ..useless }, MARKET, LIMITS),
            Remedy::Resend
        );
        assert_eq!(remedy(Stuck { is_cancelled: true, ..useless }, MARKET, LIMITS), Remedy::Resend);
    }
}
