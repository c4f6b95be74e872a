//! Who asks, and how a caller proves that two requests are one.

use std::fmt;

use uuid::Uuid;

/// A merchant: whoever holds API keys and is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MerchantId(Uuid);

impl MerchantId {
    /// Wraps the id that the database or the clock made.
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as the database stores it.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for MerchantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One API key of a merchant or of an operator. Not the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyId(Uuid);

impl ApiKeyId {
    /// Wraps the id that the database or the clock made.
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as the database stores it.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

/// Whether a key moves real money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyMode {
    /// `qk_live_…`: only chains whose money is real.
    Live,
    /// `qk_test_…`: only chains configured as test chains.
    Test,
}

impl KeyMode {
    /// The word in the key and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// The longest accepted `Idempotency-Key`. The IETF draft sets no limit; a UUID needs 36.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// What a resource server sends in `Idempotency-Key` to prove that a request is a repetition.
///
/// Chosen per request that it serves, so that a replay by the buyer does not carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// The header is empty, too long, or holds something other than visible ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an Idempotency-Key is 1 to {MAX_IDEMPOTENCY_KEY_BYTES} visible ASCII characters")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// Accepts 1 to 255 visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let fits = (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidIdempotencyKey)
        }
    }

    /// The key as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{IdempotencyKey, InvalidIdempotencyKey};

    #[test]
    fn a_key_is_one_to_255_visible_ascii_characters() {
        for text in ["a", "order-1/2", &"x".repeat(255)] {
            assert_eq!(IdempotencyKey::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "a b", "ключ", "a\n", &"x".repeat(256)] {
            assert_eq!(IdempotencyKey::parse(text), Err(InvalidIdempotencyKey), "{text:?}");
        }
    }
}
