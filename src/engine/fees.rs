//! What we offer for gas. Pure: facts in, an offer out.

use crate::chain::FeeFacts;

/// Base's minimum base fee (Base documentation, throughput and limits).
const MIN_BASE_FEE_WEI: u128 = 5_000_000;
/// The least priority fee offered, so that an idle node's zero does not leave us unmined.
const MIN_PRIORITY_FEE_WEI: u128 = 1_000_000;
/// Offered multiple of the base fee. Base moves at most 4 % per block, so four times outlasts more
/// than 30 full blocks; what is offered above the base fee is not paid.
const BASE_FEE_FACTOR: u128 = 4;
/// Offered multiple of the minimum base fee, which costs nothing while fees are low.
const MIN_BASE_FEE_FACTOR: u128 = 10;

/// The fee fields of an EIP-1559 transaction, in wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fees {
    /// `maxFeePerGas`.
    pub(super) fee_wei_max: u128,
    /// `maxPriorityFeePerGas`.
    pub(super) priority_fee_wei_max: u128,
}

/// The offer for a new transaction.
pub(super) fn offer(market: FeeFacts) -> Fees {
    let priority = market.priority_fee_wei.max(MIN_PRIORITY_FEE_WEI);
    let base = market
        .base_fee_wei
        .saturating_mul(BASE_FEE_FACTOR)
        .max(MIN_BASE_FEE_WEI.saturating_mul(MIN_BASE_FEE_FACTOR));
    Fees { fee_wei_max: base.saturating_add(priority), priority_fee_wei_max: priority }
}

#[cfg(test)]
mod tests {
    use super::{Fees, offer};
    use crate::chain::FeeFacts;

    #[test]
    fn the_offer_outlasts_a_rising_base_fee_and_never_starts_at_zero() {
        for (base_fee_wei, priority_fee_wei, fee_wei_max, priority_fee_wei_max) in [
            (0, 0, 51_000_000, 1_000_000),
            (5_000_000, 999_999, 51_000_000, 1_000_000),
            (12_500_000, 1_000_001, 51_000_001, 1_000_001),
            (12_500_001, 1_000_000, 51_000_004, 1_000_000),
            (u128::MAX, u128::MAX, u128::MAX, u128::MAX),
        ] {
            let offered = offer(FeeFacts { base_fee_wei, priority_fee_wei });
            assert_eq!(offered, Fees { fee_wei_max, priority_fee_wei_max });
            assert!(offered.priority_fee_wei_max <= offered.fee_wei_max);
        }
    }
}
