//! One JSON value into one value of ours, as generously as the official SDKs write them.
//!
//! Each function either reads the value or says what it expected, to complete "expected …".
//! An absent field is read as `null`, so that the two are told apart nowhere.

use alloy::primitives::{Address, B256, Bytes, U256, hex};
use serde_json::Value;

use crate::domain::Amount;

/// What should have been there, in words.
pub type Expected = &'static str;

/// The longest signature that is read. An externally owned account needs 65 bytes; a wrapped one of a
/// contract wallet also carries the call to its factory.
const MAX_SIGNATURE_BYTES: usize = 8 * 1024;

/// A `uint256`: decimal text, as documented, or what `BigInt()` of the official code also takes.
pub fn uint(value: &Value) -> Result<U256, Expected> {
    let parsed = match value {
        Value::String(text) => uint_text(text),
        // A larger JSON number was rounded to a float while it was parsed: only text is exact.
        Value::Number(number) => number.as_u64().map(U256::from),
        _ => None,
    };
    parsed.ok_or("a whole number below 2^256 as a decimal or 0x string, or one below 2^64")
}

fn uint_text(text: &str) -> Option<U256> {
    let Some(digits) = text.strip_prefix("0x") else {
        return Amount::parse(text).ok().map(Amount::base_units);
    };
    // `from_str_radix` skips underscores and accepts the empty string.
    let is_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| U256::from_str_radix(digits, 16).ok()).flatten()
}

/// A whole number that JSON may also spell with a point: Python writes a float 300 as `300.0`.
pub(super) fn integer(value: &Value) -> Option<u64> {
    let number = value.as_number()?;
    number.as_u64().or_else(|| number.to_string().strip_suffix(".0")?.parse().ok())
}

/// A duration.
pub(super) fn seconds(value: &Value) -> Result<u64, Expected> {
    integer(value).filter(|seconds| *seconds > 0).ok_or("a positive whole number of seconds")
}

/// Text of any length; the caller bounds what it keeps.
pub(super) fn text(value: &Value) -> Result<&str, Expected> {
    value.as_str().ok_or("a string")
}

/// An address in any case. The checksum is not enforced, as in the official SDKs.
pub fn address(value: &Value) -> Result<Address, Expected> {
    prefixed(value).and_then(|text| text.parse().ok()).ok_or("an address, 0x and 40 hex digits")
}

/// A hash or an authorization nonce.
pub(super) fn bytes32(value: &Value) -> Result<B256, Expected> {
    prefixed(value).and_then(|text| text.parse().ok()).ok_or("32 bytes of hex")
}

/// A signature of whatever form; `verify` knows the forms.
pub fn signature(value: &Value) -> Result<Bytes, Expected> {
    prefixed(value)
        .filter(|text| text.len() / 2 <= MAX_SIGNATURE_BYTES.saturating_add(1))
        .and_then(|text| hex::decode(text).ok())
        .map(Bytes::from)
        .ok_or("0x and at most 8192 bytes of hex")
}

/// The decoders take hex with or without its prefix; the wire form always has it.
fn prefixed(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| text.starts_with("0x"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_uint_is_read_from_every_spelling_up_to_256_bits() {
        let max = U256::MAX.to_string();
        for (value, expected) in [
            (json!("0"), U256::ZERO),
            (json!("10000"), U256::from(10_000)),
            (json!("0010"), U256::from(10)),
            (json!(max), U256::MAX),
            (json!("0x0"), U256::ZERO),
            (json!("0xFf"), U256::from(255)),
            (json!(format!("0x{}", "f".repeat(64))), U256::MAX),
            (json!(0), U256::ZERO),
            (json!(u64::MAX), U256::from(u64::MAX)),
        ] {
            assert_eq!(uint(&value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn anything_else_is_not_a_uint() {
        let one_too_many = format!("{}6", U256::MAX.to_string().strip_suffix('5').unwrap());
        let mut values = vec![json!(one_too_many), json!(format!("0x1{}", "0".repeat(64)))];
        for text in
            ["", " 1", "1 ", "-1", "+1", "1.0", "1e3", "1_0", "0x", "0x_1", "0xg", "ff", "١"]
        {
            values.push(json!(text));
        }
        for text in ["-1", "-0", "1.0", "1.5", "1e3", "18446744073709551616", "null", "true", "[1]"]
        {
            values.push(serde_json::from_str(text).unwrap());
        }
        for value in values {
            assert!(uint(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn seconds_are_positive_and_whole_however_they_are_spelled() {
        for (text, expected) in [
            ("1", Some(1)),
            ("300.0", Some(300)),
            ("3e2", Some(300)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("0", None),
            ("0.0", None),
            ("-0.0", None),
            ("-1", None),
            ("-1.0", None),
            ("0.5", None),
            ("300.5", None),
            ("1e300", None),
            ("\"300\"", None),
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(seconds(&value).ok(), expected, "{text}");
        }
    }

    #[test]
    fn hex_has_its_prefix_and_its_length_and_any_case() {
        let digits = |n: usize| "aB".repeat(n / 2) + &"c".repeat(n % 2);
        let odd = ["", "0x", "0X", "0x0x"];
        for n in [39, 40, 41, 42, 63, 64, 65, 66] {
            let value = json!(format!("0x{}", digits(n)));
            assert_eq!(address(&value).is_ok(), n == 40, "address of {n} digits");
            assert_eq!(bytes32(&value).is_ok(), n == 64, "bytes32 of {n} digits");
            assert_eq!(signature(&value).is_ok(), n % 2 == 0, "signature of {n} digits");
            for prefix in odd.iter().filter(|prefix| **prefix != "0x") {
                let value = json!(format!("{prefix}{}", digits(n)));
                let read = (address(&value).ok(), bytes32(&value).ok(), signature(&value).ok());
                assert_eq!(read, (None, None, None), "{value}");
            }
        }
        assert!(address(&json!(format!("0x{}g", digits(39)))).is_err());
        assert!(address(&json!(5)).is_err());
    }

    #[test]
    fn a_signature_is_at_most_8_kib() {
        let of_bytes = |n: usize| json!(format!("0x{}", "00".repeat(n)));
        for n in [0, 1, 65, MAX_SIGNATURE_BYTES] {
            assert_eq!(signature(&of_bytes(n)).map(|bytes| bytes.len()), Ok(n));
        }
        assert!(signature(&of_bytes(MAX_SIGNATURE_BYTES + 1)).is_err());
    }
}
