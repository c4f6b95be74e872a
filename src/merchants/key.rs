//! API keys: made here, shown once, kept as a hash.

use alloy::{hex, primitives::B256};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::domain::KeyMode;

/// How much of a key is kept in the open, so that people can tell their keys apart.
const LABEL_CHARS: usize = 14;

/// A key in plain form. It does not print.
#[derive(Debug)]
pub struct ApiKey {
    secret: SecretString,
}

/// The SHA-256 of a key: all that is stored. The key is 256 random bits, so there is nothing that a
/// slow hash would protect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl ApiKey {
    /// A new random key, `qk_live_…` or `qk_test_…`.
    pub fn generate(mode: KeyMode) -> Self {
        let secret = format!("qk_{}_{}", mode.as_str(), hex::encode(B256::random()));
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
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.reveal())
    }
}

impl KeyHash {
    /// The hash of a key that somebody presented.
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    /// The hash as the database stores it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{ApiKey, KeyHash};
    use crate::domain::KeyMode;

    #[test]
    fn a_key_says_its_mode_and_prints_nothing_of_itself() {
        let key = ApiKey::generate(KeyMode::Test);
        let secret = key.reveal();
        assert!(secret.starts_with("qk_test_"), "{secret}");
        assert_eq!(secret.len(), "qk_test_".len() + 64);
        assert!(secret.starts_with(&key.label()));
        assert_eq!(KeyHash::of(secret), key.hash());
        assert!(!format!("{key:?}").contains(&secret[8..]));
        assert_ne!(ApiKey::generate(KeyMode::Test).reveal(), secret);
    }
}
