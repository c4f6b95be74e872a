//! Why a payment is refused.

use std::fmt;

/// A reason a payment is invalid, in order of precedence: the first that applies is reported.
///
/// Two things about reading come before the rest: an unsupported scheme and an unknown network are
/// told before anything else that is wrong with the requirements, and whether a known network is
/// served is asked once both sides could be read.
///
/// Strings and order are those of npm `@x402/evm` 2.27.0 for `exact` with EIP-3009 (x402
/// specification section 9 for the first five), and part of the public API. From
/// [`InvalidReason::AddressDenied`] on they are this facilitator's own: the payment is good, and a rule
/// of the house, of the merchant or of the payer itself forbids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InvalidReason {
    /// `x402Version` is neither 1 nor 2, or the two places that name it differ.
    X402Version,
    /// The merchant's side cannot be read, or names an asset that the merchant may not be paid in.
    PaymentRequirements,
    /// A scheme that this facilitator does not serve.
    UnsupportedScheme,
    /// A network that this facilitator does not serve.
    Network,
    /// The buyer's side cannot be read.
    Payload,
    /// A payload of another kind than EIP-3009.
    UnsupportedPayloadType,
    /// The payload is not of the scheme asked for.
    Scheme,
    /// `extra.name` or `extra.version` is missing, so the signed digest is unknown.
    MissingEip712Domain,
    /// The payload is for another network than the one asked for.
    NetworkMismatch,
    /// The wallet is not deployed and its factory is not allowed.
    Eip6492FactoryNotAllowed,
    /// The payer did not sign this.
    Signature,
    /// The payee of the authorization is not `payTo`.
    RecipientMismatch,
    /// `validBefore` has passed, or passes before a transaction could be mined.
    ValidBefore,
    /// `validAfter` lies in the future.
    ValidAfter,
    /// The authorized value is not the required amount, asked in v2.
    ValueMismatch,
    /// The authorized value is not the required amount, asked in v1.
    ValueMismatchV1,
    /// There is no contract at the asset's address.
    AssetNotDeployed,
    /// The asset does not answer `authorizationState`, or its events would not prove a payment.
    Eip3009NotSupported,
    /// The authorization was used or cancelled.
    NonceAlreadyUsed,
    /// The token's `name()` is not `extra.name`.
    TokenNameMismatch,
    /// The token's `version()` is not `extra.version`.
    TokenVersionMismatch,
    /// The payer cannot cover the amount.
    InsufficientBalance,
    /// The exact settlement call would revert, and no check above says why.
    SimulationFailed,
    /// A list denies the payer, the payee, the asset or the factory.
    AddressDenied,
    /// The payer's own policy does not allow the payee.
    PolicyPayee,
    /// The payer's own policy, or the session that signed, is not valid now.
    PolicyExpired,
    /// The payer's own policy allows less.
    PolicyExceeded,
    /// A cap of the operator or of the merchant would be exceeded.
    CapExceeded,
    /// The day's gas budget is spent.
    GasBudgetExceeded,
    /// The payment would cost more gas than it moves.
    BelowFloorPrice,
}

impl InvalidReason {
    /// Every reason, in order of precedence.
    pub const ALL: [Self; 30] = [
        Self::X402Version,
        Self::PaymentRequirements,
        Self::UnsupportedScheme,
        Self::Network,
        Self::Payload,
        Self::UnsupportedPayloadType,
        Self::Scheme,
        Self::MissingEip712Domain,
        Self::NetworkMismatch,
        Self::Eip6492FactoryNotAllowed,
        Self::Signature,
        Self::RecipientMismatch,
        Self::ValidBefore,
        Self::ValidAfter,
        Self::ValueMismatch,
        Self::ValueMismatchV1,
        Self::AssetNotDeployed,
        Self::Eip3009NotSupported,
        Self::NonceAlreadyUsed,
        Self::TokenNameMismatch,
        Self::TokenVersionMismatch,
        Self::InsufficientBalance,
        Self::SimulationFailed,
        Self::AddressDenied,
        Self::PolicyPayee,
        Self::PolicyExpired,
        Self::PolicyExceeded,
        Self::CapExceeded,
        Self::GasBudgetExceeded,
        Self::BelowFloorPrice,
    ];

    /// The wire string.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X402Version => "invalid_x402_version",
            Self::PaymentRequirements => "invalid_payment_requirements",
            Self::UnsupportedScheme => "unsupported_scheme",
            Self::Network => "invalid_network",
            Self::Payload => "invalid_payload",
            Self::UnsupportedPayloadType => "unsupported_payload_type",
            Self::Scheme => "invalid_exact_evm_scheme",
            Self::MissingEip712Domain => "invalid_exact_evm_missing_eip712_domain",
            Self::NetworkMismatch => "invalid_exact_evm_network_mismatch",
            Self::Eip6492FactoryNotAllowed => "eip6492_factory_not_allowed",
            Self::Signature => "invalid_exact_evm_signature",
            Self::RecipientMismatch => "invalid_exact_evm_recipient_mismatch",
            Self::ValidBefore => "invalid_exact_evm_payload_authorization_valid_before",
            Self::ValidAfter => "invalid_exact_evm_payload_authorization_valid_after",
            Self::ValueMismatch => "invalid_exact_evm_payload_authorization_value_mismatch",
            Self::ValueMismatchV1 => "invalid_exact_evm_authorization_value",
            Self::AssetNotDeployed => "asset_not_deployed_contract",
            Self::Eip3009NotSupported => "invalid_exact_evm_eip3009_not_supported",
            Self::NonceAlreadyUsed => "invalid_exact_evm_nonce_already_used",
            Self::TokenNameMismatch => "invalid_exact_evm_token_name_mismatch",
            Self::TokenVersionMismatch => "invalid_exact_evm_token_version_mismatch",
            Self::InsufficientBalance => "invalid_exact_evm_insufficient_balance",
            Self::SimulationFailed => "invalid_exact_evm_transaction_simulation_failed",
            Self::AddressDenied => "address_denied",
            Self::PolicyPayee => "spending_policy_payee_not_allowed",
            Self::PolicyExpired => "spending_policy_expired",
            Self::PolicyExceeded => "spending_policy_exceeded",
            Self::CapExceeded => "cap_exceeded",
            Self::GasBudgetExceeded => "gas_budget_exceeded",
            Self::BelowFloorPrice => "below_floor_price",
        }
    }

    /// The reason with that wire string.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for InvalidReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A verdict against a payment: the payer's or the merchant's doing, never our trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code that programs read.
    pub reason: InvalidReason,
    /// One sentence that says what to change, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with its explanation.
    pub fn new(reason: InvalidReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::InvalidReason;

    #[test]
    fn every_reason_is_listed_once_in_order_and_round_trips() {
        assert!(InvalidReason::ALL.is_sorted());
        for reason in InvalidReason::ALL {
            assert_eq!(InvalidReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(InvalidReason::parse("insufficient_funds"), None);
    }
}
