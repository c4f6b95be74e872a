//! What a key may be used for.

use std::{fmt, str::FromStr};

/// One thing that a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `/verify`.
    Verify,
    /// `/settle`.
    Settle,
    /// Reading under `/v1`.
    Read,
    /// Changing under `/v1`, and making keys.
    Manage,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Verify, Self::Settle, Self::Read, Self::Manage];

    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Settle => "settle",
            Self::Read => "read",
            Self::Manage => "manage",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Verify => 1,
            Self::Settle => 2,
            Self::Read => 4,
            Self::Manage => 8,
        }
    }
}

/// What a key may be used for: at least one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

/// Why words are no scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopesError {
    /// One of them is unknown.
    #[error("{0:?} is not a scope; there are verify, settle, read and manage")]
    Unknown(String),
    /// There is none.
    #[error("a key has at least one scope")]
    None,
}

impl Scopes {
    /// What a merchant's key may be used for unless told otherwise.
    pub const OF_MERCHANTS: Self =
        Self(Scope::Verify.bit() | Scope::Settle.bit() | Scope::Read.bit());
    /// Everything.
    pub const ALL: Self = Self(Self::OF_MERCHANTS.0 | Self::OF_OPERATORS.0);
    /// What an operator's key may be used for unless told otherwise; the most that it can.
    pub const OF_OPERATORS: Self = Self(Scope::Read.bit() | Scope::Manage.bit());

    /// The scopes that those words name.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, ScopesError> {
        let mut bits = 0;
        for word in words {
            let named = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            bits |= named.ok_or_else(|| ScopesError::Unknown(word.to_owned()))?.bit();
        }
        if bits == 0 { Err(ScopesError::None) } else { Ok(Self(bits)) }
    }

    /// Whether it is among them.
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether `others` hold all of these.
    pub const fn within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// Their words.
    pub fn words(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| self.allow(*scope)).map(Scope::as_str).collect()
    }
}

impl FromStr for Scopes {
    type Err = ScopesError;

    /// Words separated by commas.
    fn from_str(text: &str) -> Result<Self, ScopesError> {
        Self::of(text.split(',').map(str::trim))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::{Scope, Scopes, ScopesError};

    #[test]
    fn scopes_allow_what_they_name_and_nothing_else() {
        for bits in 1_u8..16 {
            let named: Vec<&str> =
                Scope::ALL.iter().filter(|s| bits & s.bit() != 0).map(|s| s.as_str()).collect();
            let scopes: Scopes = named.join(",").parse().unwrap();
            assert_eq!(scopes.to_string(), named.join(","));
            for scope in Scope::ALL {
                assert_eq!(scopes.allow(scope), named.contains(&scope.as_str()), "{scopes}");
            }
            assert!(scopes.within(scopes));
            assert_eq!(scopes.within(Scopes::OF_MERCHANTS), !named.contains(&"manage"), "{scopes}");
        }
        assert_eq!("read, read".parse::<Scopes>().unwrap().words(), ["read"]);
        assert_eq!(Scopes::of([]), Err(ScopesError::None));
        for wrong in ["", "Read", "read,", "admin"] {
            assert!(matches!(wrong.parse::<Scopes>(), Err(ScopesError::Unknown(_))), "{wrong:?}");
        }
    }
}
