//! Lists in pages.

use serde_json::{Value, json};

use crate::http::error::ApiError;

/// How many things a page holds if nothing else is asked.
const LIMIT: u32 = 50;
/// How many at most.
const LIMIT_MAX: u32 = 100;

/// The limit that was asked for.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(LIMIT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::Malformed(format!("limit: {limit} is not between 1 and {LIMIT_MAX}")))
}

/// A page, and where the next one begins; a page that is not full is the last.
pub(super) fn page(name: &str, items: &[Value], cursor: &str, limit: u32) -> Value {
    let is_full = u32::try_from(items.len()).is_ok_and(|n| n >= limit);
    let next = items.last().filter(|_| is_full).map(|last| last[cursor].clone());
    json!({ name: items, "next": next })
}
