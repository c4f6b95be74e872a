//! Trouble between us and a chain. Never a verdict on a payment.

use std::fmt;

use alloy::{
    primitives::Bytes,
    rpc::json_rpc::ErrorPayload,
    transports::{RpcError, TransportErrorKind},
};

use crate::domain::ChainId;

/// An endpoint did not answer, or answered something that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} on {chain_id}{}", Among(endpoint.as_ref()))]
pub struct ChainError {
    /// What was tried, in words.
    pub operation: String,
    /// Where.
    pub chain_id: ChainId,
    /// Whose trouble it is, where it is one endpoint's.
    pub endpoint: Option<EndpointName>,
    /// What came back.
    #[source]
    pub source: ChainErrorKind,
}

/// What an endpoint is called: its place in the settings. Its URL may hold a key, and so may its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointName {
    /// Which one, from one.
    pub position: usize,
    /// Of how many.
    pub n_endpoints: usize,
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {} of {}", self.position, self.n_endpoints)
    }
}

/// The end of a message: whose trouble it is, unless there is only one.
struct Among<'a>(Option<&'a EndpointName>);

impl fmt::Display for Among<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) if name.n_endpoints > 1 => write!(f, ", {name}"),
            _ => Ok(()),
        }
    }
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
    /// The endpoint cannot run the lens.
    #[error(
        "the endpoint takes the verification lens neither by state override nor as creation code: {0}"
    )]
    NoLens(String),
    /// The endpoint is of another chain.
    #[error("the endpoint is of eip155:{0}")]
    OtherChain(u64),
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

    /// Whether the endpoint is at fault, so that another one may know better. What a node says of the
    /// call itself, every node would say.
    pub(super) fn is_trouble(&self) -> bool {
        match self {
            Self::Rpc(RpcError::ErrorResp(refusal)) => is_too_many_calls(refusal),
            Self::Rpc(
                RpcError::Transport(_) | RpcError::DeserError { .. } | RpcError::NullResp,
            )
            | Self::NoLens(_)
            | Self::OtherChain(_) => true,
            Self::Rpc(
                RpcError::UnsupportedFeature(_)
                | RpcError::LocalUsageError(_)
                | RpcError::SerError(_),
            )
            | Self::Unusable(_) => false,
        }
    }
}

/// EIP-1474 "limit exceeded". Infura says so of too many calls and of too many logs.
const LIMIT_EXCEEDED_CODE: i64 = -32_005;
/// The HTTP status, which Alchemy puts into JSON-RPC too.
const TOO_MANY_REQUESTS_CODE: i64 = 429;
/// Words by which providers say that there were too many calls.
const TOO_MANY_CALLS_WORDS: [&str; 4] =
    ["rate limit", "too many requests", "request limit", "compute units per second"];
/// Words of a refusal that is about what was searched for.
const SEARCH_WORDS: [&str; 3] = ["result", "range", "block"];

pub(super) fn is_too_many_calls(refusal: &ErrorPayload) -> bool {
    let message = refusal.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    refusal.code == TOO_MANY_REQUESTS_CODE
        || says(&TOO_MANY_CALLS_WORDS)
        || (refusal.code == LIMIT_EXCEEDED_CODE && !says(&SEARCH_WORDS))
}

/// JSON-RPC codes by which nodes say that they do not know a method: JSON-RPC 2.0, and EIP-1474.
const UNKNOWN_METHOD_CODES: [i64; 2] = [-32_601, -32_004];

/// Words by which nodes and providers say the same under other codes.
const UNKNOWN_METHOD_WORDS: [&str; 6] = [
    "method not found",
    "unknown method",
    "unsupported method",
    "method not supported",
    "is not available",
    "is not supported",
];

/// Whether the endpoint says that it does not know the method that it was asked.
pub(super) fn is_unknown_method(error: &ChainErrorKind) -> bool {
    let says_so = |text: &str| {
        let text = text.to_lowercase();
        UNKNOWN_METHOD_WORDS.iter().any(|words| text.contains(words))
    };
    match error {
        ChainErrorKind::Rpc(RpcError::ErrorResp(refusal)) => {
            UNKNOWN_METHOD_CODES.contains(&refusal.code) || says_so(&refusal.message)
        }
        ChainErrorKind::Rpc(RpcError::Transport(TransportErrorKind::HttpError(error))) => {
            (400..500).contains(&error.status) && says_so(&error.body)
        }
        _ => false,
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

pub(super) fn revert_text(data: Option<&Bytes>, message: &str) -> String {
    const MAX_TEXT_CHARS: usize = 300;
    let decoded = data.and_then(|data| alloy::sol_types::decode_revert_reason(data));
    let text = decoded.as_deref().unwrap_or(message);
    let text = text.trim_start_matches("revert: ").trim_start_matches("execution reverted: ");
    text.chars().take(MAX_TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use alloy::transports::{RpcError, TransportErrorKind};

    use super::{ChainErrorKind, is_unknown_method};

    #[test]
    fn an_unknown_method_is_told_from_other_refusals() {
        let http = |status, body: &str| {
            ChainErrorKind::of_call(TransportErrorKind::http_error(status, body.to_owned()))
        };
        for (is_unknown, what) in [
            (true, refusal(-32_601, "Method not found")),
            (true, refusal(-32_601, "the method eth_simulateV1 does not exist/is not available")),
            (true, refusal(-32_004, "eth_simulateV1")),
            (true, refusal(-32_600, "Unsupported method: eth_simulateV1 on BASE_MAINNET")),
            (true, http(400, r#"{"error":{"message":"method is not available"}}"#)),
            (false, refusal(-32_000, "header not found")),
            (false, refusal(-32_602, "invalid params")),
            (false, refusal(-32_005, "limit exceeded")),
            (false, refusal(3, "execution reverted")),
            (false, http(503, "the service is not available")),
            (false, ChainErrorKind::Rpc(RpcError::NullResp)),
        ] {
            assert_eq!(is_unknown_method(&what), is_unknown, "{what}");
        }
    }

    fn refusal(code: i64, message: &str) -> ChainErrorKind {
        let payload = serde_json::json!({ "code": code, "message": message });
        ChainErrorKind::Rpc(RpcError::ErrorResp(serde_json::from_value(payload).unwrap()))
    }

    #[test]
    fn another_endpoint_is_asked_for_trouble_and_not_for_another_answer() {
        let nothing = "not JSON".parse::<u8>().map(drop).unwrap_err();
        for (is_trouble, what, kind) in [
            (true, "a timeout", ChainErrorKind::of_call(TransportErrorKind::custom(nothing))),
            (
                true,
                "502",
                ChainErrorKind::of_call(TransportErrorKind::http_error(502, String::new())),
            ),
            (
                true,
                "429",
                ChainErrorKind::of_call(TransportErrorKind::http_error(429, String::new())),
            ),
            (true, "null", ChainErrorKind::Rpc(RpcError::NullResp)),
            (true, "another chain", ChainErrorKind::OtherChain(1)),
            (true, "EIP-1474", refusal(-32_005, "limit exceeded")),
            (
                true,
                "Infura",
                refusal(-32_005, "daily request count exceeded, request rate limited"),
            ),
            (true, "Alchemy", refusal(429, "Your app has exceeded its capacity")),
            (true, "words", refusal(-32_016, "over rate limit")),
            (false, "too many logs", refusal(-32_005, "query returned more than 10000 results")),
            (false, "a range", refusal(-32_600, "up to a 10 block range")),
            (false, "a revert", refusal(3, "execution reverted")),
            (false, "no such method", refusal(-32_601, "method not found")),
            (false, "odd content", ChainErrorKind::Unusable("odd".to_owned())),
        ] {
            assert_eq!(kind.is_trouble(), is_trouble, "{what}");
        }
    }
}
