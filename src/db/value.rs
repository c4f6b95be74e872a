//! Domain values from columns. The constraints of the schema make failures impossible in practice;
//! here they are still errors, because a restored backup keeps no promises.

use alloy::primitives::{Address, B256, U256};

use crate::domain::{Amount, AuthorizationNonce, ChainId};

use super::DbError;

fn unreadable(what: &'static str, value: impl std::fmt::Debug) -> DbError {
    let source = sqlx::Error::Decode(format!("unreadable {what}: {value:?}").into());
    DbError { operation: "read a row", source }
}

/// A `bytea` of 20 bytes.
pub fn address(bytes: &[u8]) -> Result<Address, DbError> {
    Address::try_from(bytes).map_err(|_| unreadable("address", bytes))
}

/// A `bytea` of 32 bytes.
pub fn hash(bytes: &[u8]) -> Result<B256, DbError> {
    B256::try_from(bytes).map_err(|_| unreadable("hash", bytes))
}

/// A `bytea` of 32 bytes that is an authorization nonce.
pub fn authorization_nonce(bytes: &[u8]) -> Result<AuthorizationNonce, DbError> {
    hash(bytes).map(AuthorizationNonce::from_bytes)
}

/// A `numeric(78, 0)`, read as text.
pub fn amount(text: &str) -> Result<Amount, DbError> {
    Amount::parse(text).map_err(|_| unreadable("amount", text))
}

/// A `numeric(78, 0)` that is not an amount, read as text.
pub fn u256(text: &str) -> Result<U256, DbError> {
    amount(text).map(Amount::base_units)
}

/// A CAIP-2 `text`.
pub fn chain_id(text: &str) -> Result<ChainId, DbError> {
    text.parse().map_err(|_| unreadable("chain id", text))
}

/// A `bigint` that counts: block heights, account nonces, log indices.
pub fn number(value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(|_| unreadable("count", value))
}

/// A count as a `bigint`. Heights beyond 2^63 do not exist.
pub fn height(value: u64) -> Result<i64, DbError> {
    i64::try_from(value).map_err(|_| unreadable("count", value))
}
