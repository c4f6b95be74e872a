//! API keys: made here, shown once, kept as a keyed hash.
//!
//! A key is `qk_live_` or `qk_test_`, 64 hex digits of 256 random bits, and 8 hex digits of a checksum:
//! the beginning of the SHA-256 of what stands before them. A mistyped key is told apart without looking
//! anywhere, and scanners find lost ones by `qk_(live|test)_[0-9a-f]{72}`.

use std::fmt;

use alloy::{hex, primitives::B256};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::domain::KeyMode;

/// `qk_live_` or `qk_test_`.
const PREFIX_CHARS: usize = 8;
/// 256 bits in hex.
const SECRET_CHARS: usize = 64;
/// 32 bits in hex: of four thousand million mistyped keys, one passes.
const CHECKSUM_CHARS: usize = 8;
/// How much of a key is kept in the open, so that people can tell their keys apart.
const LABEL_CHARS: usize = 14;

/// A key in plain form. It does not print.
#[derive(Debug)]
pub struct ApiKey {
    secret: SecretString,
}

/// A text that has a key's form and a right checksum. Whether anybody holds it, nobody has looked.
#[derive(Clone, Copy)]
pub struct PresentedKey<'a>(&'a str);

/// The text is not a key: mistyped, cut, or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an API key: it is mistyped or cut")]
pub struct NotAKey;

/// What keys are hashed with. Whoever has the database without it can neither use a stored hash nor tell
/// whether a key that they found is in it.
#[derive(Clone)]
pub struct Pepper(Hmac<Sha256>);

/// The HMAC-SHA-256 of a key under the pepper: all that is stored. The key is 256 random bits, so there
/// is nothing that a slow hash would protect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl ApiKey {
    /// A new random key.
    pub fn generate(mode: KeyMode) -> Self {
        let unchecked = format!("qk_{}_{}", mode.as_str(), hex::encode(B256::random()));
        let secret = format!("{unchecked}{}", hex::encode(checksum(&unchecked)));
        Self { secret: secret.into() }
    }

    /// The key itself, to be shown to its owner once.
    pub fn reveal(&self) -> &str {
        self.secret.expose_secret()
    }

    /// The beginning of the key.
    pub fn label(&self) -> String {
        self.reveal().chars().take(LABEL_CHARS).collect()
    }

    /// What is stored.
    pub fn hash(&self, pepper: &Pepper) -> KeyHash {
        pepper.hash(PresentedKey(self.reveal()))
    }
}

impl<'a> PresentedKey<'a> {
    /// Accepts what has a key's form and a right checksum.
    pub fn parse(text: &'a str) -> Result<Self, NotAKey> {
        let digits = text.strip_prefix("qk_live_").or_else(|| text.strip_prefix("qk_test_"));
        let digits = digits.ok_or(NotAKey)?;
        let is_hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != SECRET_CHARS + CHECKSUM_CHARS || !digits.bytes().all(is_hex) {
            return Err(NotAKey);
        }
        let (unchecked, found) = text.split_at(PREFIX_CHARS + SECRET_CHARS);
        let mut expected = [0; CHECKSUM_CHARS];
        hex::encode_to_slice(checksum(unchecked), &mut expected).map_err(|_| NotAKey)?;
        if found.as_bytes() == expected { Ok(Self(text)) } else { Err(NotAKey) }
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedKey")
    }
}

impl Pepper {
    /// That pepper, ready to hash.
    pub fn new(secret: &SecretString) -> Self {
        let keyed = Hmac::new_from_slice(secret.expose_secret().as_bytes());
        Self(keyed.expect("HMAC takes keys of any length"))
    }

    /// The hash of a key that somebody presented.
    pub fn hash(&self, key: PresentedKey<'_>) -> KeyHash {
        let mut keyed = self.0.clone();
        keyed.update(key.0.as_bytes());
        KeyHash(keyed.finalize().into_bytes().into())
    }
}

impl Pepper {
    /// A code over `parts` that only we can make. The first of them says what it is for, so that it can
    /// never be the hash of a key, which begins with `qk_`. Each part is preceded by its length.
    pub(super) fn code(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut keyed = self.0.clone();
        for part in parts {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            keyed.update(&length.to_be_bytes());
            keyed.update(part);
        }
        keyed.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper")
    }
}

impl KeyHash {
    /// The hash as the database stores it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it is the stored one. Takes the same time wherever they differ.
    pub(super) fn is(&self, stored: &[u8]) -> bool {
        self.0.ct_eq(stored).into()
    }
}

fn checksum(unchecked: &str) -> [u8; CHECKSUM_CHARS / 2] {
    let digest: [u8; 32] = Sha256::digest(unchecked.as_bytes()).into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::{ApiKey, NotAKey, Pepper, PresentedKey};
    use crate::domain::KeyMode;

    #[test]
    fn a_key_says_its_mode_and_prints_nothing_of_itself() {
        let key = ApiKey::generate(KeyMode::Test);
        let secret = key.reveal();
        assert!(secret.starts_with("qk_test_"), "{secret}");
        assert_eq!(secret.len(), "qk_test_".len() + 64 + 8);
        assert!(secret.starts_with(&key.label()));
        let (pepper, other) = (Pepper::new(&"p".into()), Pepper::new(&"q".into()));
        let presented = PresentedKey::parse(secret).unwrap();
        assert_eq!(pepper.hash(presented), key.hash(&pepper));
        assert_ne!(other.hash(presented), key.hash(&pepper), "the hash is keyed");
        assert!(key.hash(&pepper).is(key.hash(&pepper).as_bytes()));
        assert!(!key.hash(&pepper).is(key.hash(&other).as_bytes()));
        for printed in [format!("{key:?}"), format!("{presented:?}"), format!("{pepper:?}")] {
            assert!(!printed.contains(&secret[8..]), "{printed}");
        }
        assert_ne!(ApiKey::generate(KeyMode::Test).reveal(), secret);
    }

    #[test]
    fn a_key_with_any_character_changed_is_not_a_key() {
        // The checksum by sha256sum, so that it is not only what this code thinks it is.
        let known = format!("qk_live_{}{}", "0".repeat(64), "1f27ecbe");
        PresentedKey::parse(&known).unwrap();
        let good = ApiKey::generate(KeyMode::Live).reveal().to_owned();
        PresentedKey::parse(&good).unwrap();
        for at in 0..good.len() {
            for digit in "0123456789abcdefX".chars() {
                let mut wrong = good.clone();
                wrong.replace_range(at..=at, &digit.to_string());
                if wrong != good {
                    assert_eq!(PresentedKey::parse(&wrong).unwrap_err(), NotAKey, "{at}");
                }
            }
        }
        let other_mode = good.replace("qk_live_", "qk_test_");
        let (upper, longer) = (good.to_uppercase(), format!("{good}0"));
        for wrong in ["", "qk_live_", &good[..79], &longer, &upper, &other_mode, &good[8..]] {
            assert_eq!(PresentedKey::parse(wrong).unwrap_err(), NotAKey, "{wrong}");
        }
    }
}
