//! Token amounts in base units.

use std::fmt;

use alloy::primitives::U256;

/// An amount of one asset in its smallest unit: for USDC, `1` is 0.000001 USDC.
///
/// The operators of [`U256`] wrap silently, even in debug builds. `Amount` therefore has no `+` and
/// no `-`: adding is [`Amount::checked_add`], and an overflow is a value the caller must handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(U256);

/// Why a string is not an [`Amount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmountError {
    /// The string is empty or holds something other than ASCII digits.
    NotDecimal,
    /// The value needs more than 256 bits.
    TooLarge,
}

impl Amount {
    /// No tokens.
    pub const ZERO: Self = Self(U256::ZERO);
    /// The largest amount.
    pub const MAX: Self = Self(U256::MAX);

    /// Parses the wire form: one or more ASCII digits, without sign, point or separator.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        // `from_str_radix` skips underscores and accepts the empty string; the wire form does not.
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AmountError::NotDecimal);
        }
        U256::from_str_radix(text, 10).map(Self).map_err(|_| AmountError::TooLarge)
    }

    /// An amount of that many base units.
    pub const fn from_base_units(base_units: U256) -> Self {
        Self(base_units)
    }

    /// The sum, or `None` if it needs more than 256 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The raw value, for calldata.
    pub const fn base_units(self) -> U256 {
        self.0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_digits_are_an_amount() {
        for text in ["", "-1", "+1", "1.0", "1_000", "0x10", " 1", "١"] {
            assert_eq!(Amount::parse(text), Err(AmountError::NotDecimal), "{text:?}");
        }
    }

    #[test]
    fn the_largest_amount_round_trips_and_one_more_is_too_large() {
        let max = U256::MAX.to_string();
        assert_eq!(Amount::parse(&max).unwrap().to_string(), max);
        let one_more = format!("{}6", &max[..max.len() - 1]);
        assert_eq!(Amount::parse(&one_more), Err(AmountError::TooLarge));
    }

    #[test]
    fn adding_past_the_largest_amount_is_none() {
        let (max, one) = (Amount(U256::MAX), Amount::parse("1").unwrap());
        assert_eq!(max.checked_add(one), None);
        assert_eq!(Amount::ZERO.checked_add(one), Some(one));
    }
}
