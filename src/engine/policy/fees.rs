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
pub(in crate::engine) struct Fees {
    /// `maxFeePerGas`.
    pub(in crate::engine) fee_wei_max: u128,
    /// `maxPriorityFeePerGas`.
    pub(in crate::engine) priority_fee_wei_max: u128,
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
pub(in crate::engine) fn offer(market: FeeFacts, limits: FeeLimits) -> Result<Fees, FeesTooHigh> {
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

/// What a transaction that is mined at once pays for its gas, in wei. Where the chain asks more than is
/// offered, what it asks.
pub(in crate::engine) fn price(market: FeeFacts, limits: FeeLimits) -> u128 {
    let priority = offer(market, limits).map(|fees| fees.priority_fee_wei_max);
    market.base_fee_wei.saturating_add(priority.unwrap_or(MIN_PRIORITY_FEE_WEI))
}

/// A better offer for the same account nonce: at least an eighth more than `offered` in both fields,
/// and what a new transaction would offer now. Nodes take a replacement from ten per cent more on,
/// if both fields have it; `offered` is the highest of all attempts, because any of them may be the
/// one that a node holds. `None` if that passes the limits: then it waits.
pub(in crate::engine) fn bump(offered: Fees, market: FeeFacts, limits: FeeLimits) -> Option<Fees> {
    let raised = |fee: u128| fee.checked_add(fee.div_ceil(8))?.checked_add(1);
    let new = offer(market, limits).ok();
    let priority_fee_wei_max =
        raised(offered.priority_fee_wei_max)?.max(new.map_or(0, |new| new.priority_fee_wei_max));
    let fee_wei_max = raised(offered.fee_wei_max)?
        .max(new.map_or(0, |new| new.fee_wei_max))
        .max(priority_fee_wei_max);
    let is_within = fee_wei_max <= limits.fee_wei_max
        && priority_fee_wei_max <= limits.priority_fee_wei_max
        && fee_wei_max >= market.base_fee_wei;
    is_within.then_some(Fees { fee_wei_max, priority_fee_wei_max })
}

#[cfg(test)]
mod tests {
    use super::{FeeLimits, Fees, FeesTooHigh, bump, offer, price};
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
    fn the_price_is_the_base_fee_and_the_priority_that_is_offered() {
        for (base_fee_wei, priority_fee_wei, expected) in [
            (0, 0, 1_000_000),
            (5_000_000, 2_000_000, 7_000_000),
            (5_000_000, u128::MAX, 2_005_000_000),
            (100_000_000_000, 0, 100_001_000_000),
            (u128::MAX, 0, u128::MAX),
        ] {
            let market = FeeFacts { base_fee_wei, priority_fee_wei };
            assert_eq!(price(market, LIMITS), expected, "{base_fee_wei}");
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

    #[test]
    fn a_better_offer_is_an_eighth_more_in_both_fields() {
        let market = FeeFacts { base_fee_wei: 5_000_000, priority_fee_wei: 0 };
        let mut offered = Fees { fee_wei_max: 51_000_000, priority_fee_wei_max: 1_000_000 };
        let mut n_bumps = 0;
        while let Some(better) = bump(offered, market, LIMITS) {
            for (old, new) in [
                (offered.fee_wei_max, better.fee_wei_max),
                (offered.priority_fee_wei_max, better.priority_fee_wei_max),
            ] {
                assert!(new * 8 >= old * 9, "{old} to {new}");
            }
            assert!(better.fee_wei_max <= LIMITS.fee_wei_max);
            assert!(better.priority_fee_wei_max <= LIMITS.priority_fee_wei_max);
            offered = better;
            n_bumps += 1;
        }
        assert!(n_bumps > 50, "{n_bumps}");
    }

    #[test]
    fn a_better_offer_follows_the_market_and_never_passes_the_limit() {
        let offered = Fees { fee_wei_max: 51_000_000, priority_fee_wei_max: 1_000_000 };
        let market = FeeFacts { base_fee_wei: 2_000_000_000, priority_fee_wei: 5_000_000 };
        let better = bump(offered, market, LIMITS).unwrap();
        assert_eq!((better.fee_wei_max, better.priority_fee_wei_max), (8_005_000_000, 5_000_000));
        let market = FeeFacts { base_fee_wei: 100_000_000_000, priority_fee_wei: 0 };
        assert_eq!(bump(offered, market, LIMITS), None);
        let at_limit = Fees { fee_wei_max: 90_000_000_000, priority_fee_wei_max: 1 };
        assert_eq!(bump(at_limit, FeeFacts { base_fee_wei: 1, priority_fee_wei: 1 }, LIMITS), None);
    }
}
