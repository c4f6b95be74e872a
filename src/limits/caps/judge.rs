//! May this payment be taken? Pure: what stands and what is used in, an answer out.

use alloy::primitives::U256;

use crate::domain::{Amount, InvalidReason, Refusal};

use super::{
    cap::{CapPeriod, Measure},
    floor::least_amount,
    standing::{Counted, Standing},
};

/// What is asked of caps, beside who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What the payment moves.
    pub amount: Amount,
    /// What it costs in gas, as estimated; zero where [`Standing::asks_for_gas`] is false.
    pub gas_wei: U256,
}

/// Whether every cap that is in force, and then every gas budget and the floor, leave room.
pub fn judge(standing: &Standing, ask: Ask) -> Result<(), Refusal> {
    let in_force = || in_force(&standing.caps);
    in_force().filter(|counted| !counted.is_gas()).try_for_each(|counted| fits(counted, ask))?;
    in_force().filter(|counted| counted.is_gas()).try_for_each(|counted| fits(counted, ask))?;
    let Some(price) = standing.base_units_per_coin else { return Ok(()) };
    let least = least_amount(ask.gas_wei, price);
    if ask.amount.base_units() >= least {
        return Ok(());
    }
    let message = format!(
        "a payment of less than {least} base units costs more gas than it moves: about {} wei now, at \
         {price} base units for a coin of 10^18 wei",
        ask.gas_wei
    );
    Err(Refusal::new(InvalidReason::BelowFloorPrice, message))
}

/// Of the caps of one setter on the same, the one that names somebody.
fn in_force(caps: &[Counted]) -> impl Iterator<Item = &Counted> {
    caps.iter().filter(|counted| {
        let rank = counted.cap.terms.subject().rank();
        let outranks = |other: &&Counted| {
            is_about_the_same(counted, other) && other.cap.terms.subject().rank() > rank
        };
        !caps.iter().any(|other| outranks(&other))
    })
}

fn is_about_the_same(one: &Counted, other: &Counted) -> bool {
    let (one, other) = (&one.cap, &other.cap);
    one.set_by == other.set_by
        && one.terms.subject().as_str() == other.terms.subject().as_str()
        && one.terms.measure() == other.terms.measure()
        && one.terms.period() == other.terms.period()
}

fn fits(counted: &Counted, ask: Ask) -> Result<(), Refusal> {
    let (cap, used) = (&counted.cap, counted.used);
    let (asked, reason) = match cap.terms.measure() {
        Measure::Amount { .. } => (ask.amount.base_units(), InvalidReason::CapExceeded),
        Measure::Count { .. } => (U256::ONE, InvalidReason::CapExceeded),
        Measure::Gas { .. } => (ask.gas_wei, InvalidReason::GasBudgetExceeded),
    };
    let total = match cap.terms.period() {
        CapPeriod::Payment => Some(asked),
        CapPeriod::Hour | CapPeriod::Day => used.checked_add(asked),
    };
    if total.is_some_and(|total| total <= cap.most) {
        return Ok(());
    }
    let message = match &counted.begins_anew {
        None => format!("{cap}: {asked} is more"),
        Some(at) => format!("{cap}: {used} used, {asked} asked; it begins anew at {at}"),
    };
    Err(Refusal::new(reason, message))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, U256};
    use uuid::Uuid;

    use super::{Ask, in_force, judge};
    use crate::{
        domain::{Amount, ChainId, InvalidReason, MerchantId},
        limits::caps::{
            cap::{Cap, CapId, CapPeriod, CapTerms, Measure, Setter, Subject},
            standing::{Counted, Standing},
        },
    };

    const ASSET: Address = Address::repeat_byte(0xa5);

    fn chain() -> ChainId {
        "eip155:8453".parse().unwrap()
    }

    fn merchant() -> MerchantId {
        MerchantId::from_uuid(Uuid::from_u128(7))
    }

    fn amount() -> Measure {
        Measure::Amount { chain_id: chain(), asset: ASSET }
    }

    fn counted(
        set_by: Setter,
        subject: Subject,
        measure: Measure,
        period: CapPeriod,
        most: u64,
        used: u64,
    ) -> Counted {
        let terms = CapTerms::new(subject, measure, period).unwrap();
        let cap_id = CapId::from_uuid(Uuid::from_u128(u128::from(most) + 1));
        let begins_anew = (period != CapPeriod::Payment).then(|| "then".to_owned());
        Counted {
            cap: Cap { cap_id, set_by, terms, most: U256::from(most) },
            used: U256::from(used),
            counter_subject: String::new(),
            begins_anew,
            is_uncounted: false,
        }
    }

    fn ask(amount: u64, gas_wei: u64) -> Ask {
        Ask { amount: Amount::from_base_units(U256::from(amount)), gas_wei: U256::from(gas_wei) }
    }

    fn reason(caps: Vec<Counted>, price: Option<u64>, ask: Ask) -> Option<InvalidReason> {
        let standing = Standing { caps, base_units_per_coin: price.map(U256::from) };
        judge(&standing, ask).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn the_last_that_fits_is_taken_and_one_more_is_not() {
        let each = Subject::Merchant(None);
        let count = Measure::Count { chain_id: None, asset: None };
        let gas = Measure::Gas { chain_id: chain() };
        let capped = Some(InvalidReason::CapExceeded);
        let spent = Some(InvalidReason::GasBudgetExceeded);
        for (measure, period, most, used, ask, expected) in [
            (amount(), CapPeriod::Payment, 100, 0, ask(100, 0), None),
            (amount(), CapPeriod::Payment, 100, 0, ask(101, 0), capped),
            (amount(), CapPeriod::Hour, 100, 40, ask(60, 0), None),
            (amount(), CapPeriod::Hour, 100, 40, ask(61, 0), capped),
            (amount(), CapPeriod::Day, 0, 0, ask(0, 0), None),
            (amount(), CapPeriod::Day, 0, 0, ask(1, 0), capped),
            (count, CapPeriod::Day, 3, 2, ask(900, 0), None),
            (count, CapPeriod::Day, 3, 3, ask(0, 0), capped),
            (gas, CapPeriod::Day, 50, 20, ask(900, 30), None),
            (gas, CapPeriod::Day, 50, 20, ask(900, 31), spent),
        ] {
            let cap = counted(Setter::Operator, each, measure, period, most, used);
            assert_eq!(reason(vec![cap], None, ask), expected, "{measure:?} {period:?} {ask:?}");
        }
        let most = Amount::MAX.base_units();
        let mut cap = counted(Setter::Operator, each, amount(), CapPeriod::Day, 0, 1);
        cap.cap.most = most;
        let ask = Ask { amount: Amount::MAX, gas_wei: U256::ZERO };
        assert_eq!(reason(vec![cap], None, ask), capped, "no sum wraps");
    }

    #[test]
    fn caps_come_before_gas_budgets_and_those_before_the_floor() {
        let each = Subject::Merchant(None);
        let gas = Measure::Gas { chain_id: chain() };
        let budget = counted(Setter::Operator, each, gas, CapPeriod::Day, 10, 0);
        let cap = counted(Setter::Operator, each, amount(), CapPeriod::Day, 5, 0);
        let price = Some(1_000_000_000_000_000_000);
        let both = || vec![budget.clone(), cap.clone()];
        assert_eq!(reason(both(), price, ask(6, 11)), Some(InvalidReason::CapExceeded));
        assert_eq!(reason(both(), price, ask(5, 11)), Some(InvalidReason::GasBudgetExceeded));
        assert_eq!(reason(both(), price, ask(5, 10)), Some(InvalidReason::BelowFloorPrice));
        assert_eq!(reason(both(), price, ask(5, 5)), None);
        assert_eq!(reason(both(), None, ask(5, 10)), None);
    }

    #[test]
    fn who_is_named_wins_within_one_setter_and_setters_hold_side_by_side() {
        let payer = Some(Address::repeat_byte(1));
        let (m, day) = (Some(merchant()), CapPeriod::Day);
        let by_us = |subject, most| counted(Setter::Operator, subject, amount(), day, most, 0);
        let by_them =
            |subject, most| counted(Setter::Merchant(merchant()), subject, amount(), day, most, 0);
        let at = Subject::PayerAtMerchant;
        for (caps, expected) in [
            (vec![by_us(at(None, None), 1)], vec![1]),
            (vec![by_us(at(None, None), 1), by_us(at(None, m), 2)], vec![2]),
            (vec![by_us(at(None, m), 2), by_us(at(payer, None), 3)], vec![3]),
            (vec![by_us(at(payer, m), 4), by_us(at(payer, None), 3)], vec![4]),
            // A higher cap of the merchant's own does not lift the operator's.
            (vec![by_us(at(None, None), 1), by_them(at(payer, m), 9)], vec![1, 9]),
            (vec![by_them(at(None, m), 8), by_them(at(payer, m), 9)], vec![9]),
            // Not about the same.
            (vec![by_us(Subject::Payer(None), 1), by_us(at(payer, m), 9)], vec![1, 9]),
        ] {
            let most: Vec<u64> =
                in_force(&caps).map(|counted| counted.cap.most.to::<u64>()).collect();
            assert_eq!(most, expected, "{caps:?}");
        }
        let mut other = by_us(at(None, None), 1);
        other.cap.terms = CapTerms::new(at(None, None), amount(), CapPeriod::Hour).unwrap();
        assert_eq!(in_force(&[other, by_us(at(payer, m), 2)]).count(), 2);
    }
}
