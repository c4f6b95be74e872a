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

/// The most that is ever offered, in wei per gas. Anybody can move the median priority fee of a quiet
/// block, and an endpoint can answer anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeLimits {
    /// For base fee and priority fee together.
    pub fee_wei_max: u128,
    /// For the priority fee.
    pub priority_fee_wei_max: u128,
}

/// The base fee alone is above the limit: waiting is cheaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the base fee is {base_fee_wei} wei, and at most {fee_wei_max} wei per gas is offered")]
pub struct FeesTooHigh {
    /// What the chain asks.
    pub base_fee_wei: u128,
    /// What is offered at most.
    pub fee_wei_max: u128,
}

/// The offer for a new transaction, within `limits`.
pub(super) fn offer(market: FeeFacts, limits: FeeLimits) -> Result<Fees, FeesTooHigh> {
    let (base_fee_wei, fee_wei_max) = (market.base_fee_wei, limits.fee_wei_max);
    let too_high = FeesTooHigh { base_fee_wei, fee_wei_max };
    let room = fee_wei_max.checked_sub(base_fee_wei).filter(|room| *room > 0).ok_or(too_high)?;
    let priority = market
        .priority_fee_wei
        .min(limits.priority_fee_wei_max)
        .max(MIN_PRIORITY_FEE_WEI)
        .min(room);
    let base = market
        .base_fee_wei
        .saturating_mul(BASE_FEE_FACTOR)
        .max(MIN_BASE_FEE_WEI.saturating_mul(MIN_BASE_FEE_FACTOR));
    let fee_wei_max = base.saturating_add(priority).min(fee_wei_max);
    Ok(Fees { fee_wei_max, priority_fee_wei_max: priority })
}

#[cfg(test)]
mod tests {
    use super::{FeeLimits, Fees, FeesTooHigh, offer};
    use crate::chain::FeeFacts;

    const LIMITS: FeeLimits =
        FeeLimits { fee_wei_max: 100_000_000_000, priority_fee_wei_max: 2_000_000_000 };

    #[test]
    fn the_offer_outlasts_a_rising_base_fee_and_never_starts_at_zero() {
        for (base_fee_wei, priority_fee_wei, fee_wei_max, priority_fee_wei_max) in [
            (0, 0, 51_000_000, 1_000_000),
            (5_000_000, 999_999, 51_000_000, 1_000_000),
            (12_500_000, 1_000_001, 51_000_001, 1_000_001),
            (12_500_001, 1_000_000, 51_000_004, 1_000_000),
        ] {
            let offered = offer(FeeFacts { base_fee_wei, priority_fee_wei }, LIMITS);
            assert_eq!(offered, Ok(Fees { fee_wei_max, priority_fee_wei_max }));
        }
    }

    #[test]
    fn nothing_moves_the_offer_past_its_limits() {
        for (base_fee_wei, priority_fee_wei, fee_wei_max, priority_fee_wei_max) in [
            (5_000_000, 90_000_000_000, 2_050_000_000, 2_000_000_000),
            (90_000_000_000, 2_000_000_000, 100_000_000_000, 2_000_000_000),
            (99_999_999_999, 2_000_000_000, 100_000_000_000, 1),
            (5_000_000, u128::MAX, 2_050_000_000, 2_000_000_000),
        ] {
            let offered = offer(FeeFacts { base_fee_wei, priority_fee_wei }, LIMITS);
            assert_eq!(offered, Ok(Fees { fee_wei_max, priority_fee_wei_max }), "{base_fee_wei}");
        }
        for base_fee_wei in [100_000_000_000, u128::MAX] {
            let fee_wei_max = LIMITS.fee_wei_max;
            let offered = offer(FeeFacts { base_fee_wei, priority_fee_wei: 0 }, LIMITS);
            assert_eq!(offered, Err(FeesTooHigh { base_fee_wei, fee_wei_max }));
        }
    }
}
