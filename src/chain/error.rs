//! Trouble between us and a chain. Never a verdict on a payment.

use alloy::{
    primitives::Bytes,
    transports::{RpcError, TransportErrorKind},
};

use crate::domain::ChainId;

/// An endpoint did not answer, or answered something that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} on {chain_id}")]
pub struct ChainError {
    /// What was tried, in words.
    pub operation: String,
    /// Where.
    pub chain_id: ChainId,
    /// What came back.
    #[source]
    pub source: ChainErrorKind,
}

impl ChainError {
    /// Whether the node answered, and refused, rather than not answer.
    pub(super) fn is_answer(&self) -> bool {
        matches!(&self.source, ChainErrorKind::Rpc(error) if error.is_error_resp())
    }
}

/// The kinds of trouble.
#[derive(Debug, thiserror::Error)]
pub enum ChainErrorKind {
    /// The transport failed, or the node answered with an error.
    #[error(transparent)]
    Rpc(RpcError<TransportErrorKind>),
    /// The answer does not have the shape or content it must have.
    #[error("{0}")]
    Unusable(String),
}

impl ChainErrorKind {
    /// Trouble with a call, without the endpoint's URL: it may hold a key, and errors are logged.
    pub(super) fn of_call(error: RpcError<TransportErrorKind>) -> Self {
        let RpcError::Transport(TransportErrorKind::Custom(cause)) = error else {
            return Self::Rpc(error);
        };
        Self::Rpc(match cause.downcast::<reqwest::Error>() {
            Ok(cause) => TransportErrorKind::custom(cause.without_url()),
            Err(cause) => RpcError::Transport(TransportErrorKind::Custom(cause)),
        })
    }
}

/// JSON-RPC codes by which nodes say that the EVM ran and the call failed.
///
/// 3: go-ethereum, reth, anvil. -32015: Nethermind.
const EXECUTION_FAILED_CODES: [i64; 2] = [3, -32_015];

/// Words by which nodes that use a general code say the same: go-ethereum's `core/vm/errors.go`, and
/// revm's names (anvil, reth), which come after "EVM error".
const EXECUTION_FAILED_WORDS: [&str; 13] = [
    "revert",
    "out of gas",
    "outofgas",
    "invalid opcode",
    "evm error",
    "invalid jump",
    "stack underflow",
    "stack limit",
    "write protection",
    "return data out of bounds",
    "gas uint64 overflow",
    "call depth",
    "invalid code",
];

/// The contract's or node's word for why a call failed, if `error` says that the EVM ran it.
///
/// Everything else (rate limits, unknown blocks, timeouts) says nothing about the call.
pub(super) fn execution_failure(error: &RpcError<TransportErrorKind>) -> Option<String> {
    let response = error.as_error_resp()?;
    let message = response.message.to_lowercase();
    let ran = EXECUTION_FAILED_CODES.contains(&response.code)
        || EXECUTION_FAILED_WORDS.iter().any(|word| message.contains(word));
    ran.then(|| revert_text(response.as_revert_data().as_ref(), &response.message))
}

fn revert_text(data: Option<&Bytes>, message: &str) -> String {
    const MAX_TEXT_CHARS: usize = 300;
    let decoded = data.and_then(|data| alloy::sol_types::decode_revert_reason(data));
    let text = decoded.as_deref().unwrap_or(message);
    let text = text.trim_start_matches("revert: ").trim_start_matches("execution reverted: ");
    text.chars().take(MAX_TEXT_CHARS).collect()
}
