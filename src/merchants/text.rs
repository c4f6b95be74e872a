//! What people write: names and reasons.

/// Why a text cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {n_chars_max} characters and no control characters")]
pub struct BadText {
    n_chars_max: usize,
}

/// The name of a merchant or of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// Why somebody does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why(String);

impl Name {
    /// Accepts 1 to 200 characters.
    pub fn parse(text: &str) -> Result<Self, BadText> {
        checked(text, 200).map(Self)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Why {
    /// Accepts 1 to 500 characters.
    pub fn parse(text: &str) -> Result<Self, BadText> {
        checked(text, 500).map(Self)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Postgres takes no NUL, and terminals obey the others.
fn checked(text: &str, n_chars_max: usize) -> Result<String, BadText> {
    let fits = (1..=n_chars_max).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(BadText { n_chars_max })
}

#[cfg(test)]
mod tests {
    use super::{Name, Why};

    #[test]
    fn texts_have_a_length_and_nothing_that_a_terminal_obeys() {
        for n in [1, 200] {
            assert!(Name::parse(&"ü".repeat(n)).is_ok());
        }
        assert!(Why::parse(&"ü".repeat(500)).is_ok());
        for wrong in ["", "a\0", "a\n", "\u{1b}[2J", &"x".repeat(201)] {
            assert!(Name::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Why::parse(&"x".repeat(501)).is_err());
    }
}
