//! What `/verify` and `/settle` say.

use alloy::primitives::{Address, B256};
use serde::{Serialize, Serializer};

use crate::domain::InvalidReason;

/// A reason that is no verdict about a payment. Part of the public API, like [`InvalidReason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Sent, and no block has decided yet: ask again. Official servers retry once on this string.
    SettlementPending,
    /// Another caller was promised the outcome of this payment.
    DuplicateSettlement,
    /// Our trouble while verifying; the payment may be good.
    UnexpectedVerifyError,
    /// Our trouble while settling; the outcome is unknown.
    UnexpectedSettleError,
    /// No API key, or none that we know.
    Unauthorized,
    /// The API key may not do this.
    Forbidden,
    /// The operator suspended or closed the merchant. Not the payer's fault.
    MerchantSuspended,
    /// The merchant or the address asks too much at a time.
    RateLimitExceeded,
    /// The `Idempotency-Key` was used for another payment.
    IdempotencyError,
    /// The body is not JSON, too large, or declared as something else.
    InvalidRequest,
    /// There is no such thing, or it is another merchant's.
    NotFound,
    /// It cannot be done as things stand.
    Conflict,
    /// Our trouble, where no payment was asked about.
    ServiceUnavailable,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 13] = [
        Self::SettlementPending,
        Self::DuplicateSettlement,
        Self::UnexpectedVerifyError,
        Self::UnexpectedSettleError,
        Self::Unauthorized,
        Self::Forbidden,
        Self::MerchantSuspended,
        Self::RateLimitExceeded,
        Self::IdempotencyError,
        Self::InvalidRequest,
        Self::NotFound,
        Self::Conflict,
        Self::ServiceUnavailable,
    ];

    /// The wire string.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SettlementPending => "settlement_pending",
            Self::DuplicateSettlement => "duplicate_settlement",
            Self::UnexpectedVerifyError => "unexpected_verify_error",
            Self::UnexpectedSettleError => "unexpected_settle_error",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::MerchantSuspended => "merchant_suspended",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::IdempotencyError => "idempotency_error",
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::ServiceUnavailable => "service_unavailable",
        }
    }
}

/// What stands in `invalidReason` or `errorReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The payment is invalid.
    Verdict(InvalidReason),
    /// Something else prevents a success.
    Code(Code),
}

impl Reason {
    /// The wire string.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verdict(reason) => reason.as_str(),
            Self::Code(code) => code.as_str(),
        }
    }
}

impl From<InvalidReason> for Reason {
    fn from(reason: InvalidReason) -> Self {
        Self::Verdict(reason)
    }
}

impl From<Code> for Reason {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The answer of `/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyAnswer {
    is_valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid_reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payer: Option<String>,
}

impl VerifyAnswer {
    /// The payment would be settled.
    pub fn valid(payer: Address) -> Self {
        Self {
            is_valid: true,
            invalid_reason: None,
            invalid_message: None,
            payer: Some(payer.to_checksum(None)),
        }
    }

    /// It would not, or we cannot say.
    pub fn invalid(
        reason: impl Into<Reason>,
        message: impl Into<String>,
        payer: Option<Address>,
    ) -> Self {
        Self {
            is_valid: false,
            invalid_reason: Some(reason.into()),
            invalid_message: Some(message.into()),
            payer: payer.map(|payer| payer.to_checksum(None)),
        }
    }
}

/// The answer of `/settle`. Clients call it undecodable without `transaction` and `network`, so both
/// are there even when nothing is known of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleAnswer {
    success: bool,
    transaction: String,
    network: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payer: Option<String>,
}

impl SettleAnswer {
    /// The payee has the money, and this transaction moved it.
    pub fn paid(transaction_hash: B256, network: impl Into<String>, payer: Address) -> Self {
        Self {
            success: true,
            transaction: transaction_hash.to_string(),
            network: network.into(),
            error_reason: None,
            error_message: None,
            payer: Some(payer.to_checksum(None)),
        }
    }

    /// Not paid, or not known to be. `settlement_pending` must carry a transaction hash (x402
    /// specification section 9).
    pub fn unpaid(
        reason: impl Into<Reason>,
        message: impl Into<String>,
        transaction_hash: Option<B256>,
        network: impl Into<String>,
        payer: Option<Address>,
    ) -> Self {
        Self {
            success: false,
            transaction: transaction_hash.map(|hash| hash.to_string()).unwrap_or_default(),
            network: network.into(),
            error_reason: Some(reason.into()),
            error_message: Some(message.into()),
            payer: payer.map(|payer| payer.to_checksum(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{address, b256};
    use serde_json::{json, to_value};

    use super::*;

    const PAYER: Address = address!("f39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    const CHECKSUMMED: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    const HASH: B256 = b256!("00aabbccddeeff00112233445566778899aabbccddeeff001122334455667788");
    const HASH_TEXT: &str = "0x00aabbccddeeff00112233445566778899aabbccddeeff001122334455667788";

    #[test]
    fn a_verdict_has_a_reason_only_when_it_is_negative() {
        for (answer, expected) in [
            (VerifyAnswer::valid(PAYER), json!({ "isValid": true, "payer": CHECKSUMMED })),
            (
                VerifyAnswer::invalid(InvalidReason::Signature, "not the payer's", Some(PAYER)),
                json!({
                    "isValid": false,
                    "invalidReason": "invalid_exact_evm_signature",
                    "invalidMessage": "not the payer's",
                    "payer": CHECKSUMMED,
                }),
            ),
            (
                VerifyAnswer::invalid(Code::Unauthorized, "no API key", None),
                json!({
                    "isValid": false,
                    "invalidReason": "unauthorized",
                    "invalidMessage": "no API key",
                }),
            ),
        ] {
            assert_eq!(to_value(answer).unwrap(), expected);
        }
    }

    #[test]
    fn a_settlement_always_names_transaction_and_network() {
        for (answer, expected) in [
            (
                SettleAnswer::paid(HASH, "base", PAYER),
                json!({
                    "success": true,
                    "transaction": HASH_TEXT,
                    "network": "base",
                    "payer": CHECKSUMMED,
                }),
            ),
            (
                SettleAnswer::unpaid(
                    Code::SettlementPending,
                    "no block has decided yet",
                    Some(HASH),
                    "eip155:8453",
                    Some(PAYER),
                ),
                json!({
                    "success": false,
                    "transaction": HASH_TEXT,
                    "network": "eip155:8453",
                    "errorReason": "settlement_pending",
                    "errorMessage": "no block has decided yet",
                    "payer": CHECKSUMMED,
                }),
            ),
            (
                SettleAnswer::unpaid(InvalidReason::Payload, "unreadable", None, "", None),
                json!({
                    "success": false,
                    "transaction": "",
                    "network": "",
                    "errorReason": "invalid_payload",
                    "errorMessage": "unreadable",
                }),
            ),
        ] {
            assert_eq!(to_value(answer).unwrap(), expected);
        }
    }

    #[test]
    fn no_code_reads_like_a_verdict() {
        for code in Code::ALL {
            assert_eq!(InvalidReason::parse(code.as_str()), None, "{}", code.as_str());
        }
    }
}
