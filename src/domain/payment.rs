//! What a buyer signed and what a resource server asks for.

use std::fmt;

use alloy::primitives::{Address, B256, Bytes, U256};

use super::{Amount, ChainId};

/// The 32 bytes that make one EIP-3009 authorization unique for its payer.
///
/// Not to be confused with the account nonce of a wallet, which counts its transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorizationNonce(B256);

impl AuthorizationNonce {
    /// Any 32 bytes are a nonce.
    pub const fn from_bytes(bytes: B256) -> Self {
        Self(bytes)
    }

    /// The bytes, for calldata and the database.
    pub const fn as_bytes(&self) -> &B256 {
        &self.0
    }
}

impl fmt::Display for AuthorizationNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An EIP-3009 `TransferWithAuthorization`: permission to move an amount from payer to payee once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Authorization {
    /// `from`: whose money moves.
    pub payer: Address,
    /// `to`: who receives it.
    pub payee: Address,
    /// `value`, in base units.
    pub amount: Amount,
    /// Unix seconds after which it may be used, exclusive. A `uint256`, as the token reads it.
    pub valid_after: U256,
    /// Unix seconds before which it may be used, exclusive. A `uint256`, as the token reads it.
    pub valid_before: U256,
    /// What makes it usable once.
    pub nonce: AuthorizationNonce,
}

/// The version of the x402 protocol that a request speaks; it decides shapes and some reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum X402Version {
    /// Networks by name, `maxAmountRequired`.
    V1,
    /// CAIP-2 networks, `accepted`, `amount`.
    V2,
}

impl X402Version {
    /// The number on the wire.
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// How a payment is authorized and settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// The amount asked for, no more and no less, by EIP-3009.
    Exact,
}

impl Scheme {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
        }
    }
}

/// The EIP-712 domain fields of a token that only the merchant tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenDomain {
    /// `name`, for USDC on Base `USD Coin`.
    pub name: String,
    /// `version`, for USDC `2`.
    pub version: String,
}

/// What the resource server asks for. The trusted side of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// How to pay.
    pub scheme: Scheme,
    /// Where to pay.
    pub chain_id: ChainId,
    /// The token contract.
    pub asset: Address,
    /// Who is to be paid.
    pub payee: Address,
    /// The price, in base units.
    pub amount: Amount,
    /// How long the resource server allows a payment to take, in seconds.
    pub max_timeout_seconds: u64,
    /// The token's signing domain, when the merchant gave both halves of it.
    pub token_domain: Option<TokenDomain>,
    /// The URL that is sold, where the request names one. Recorded, never judged.
    pub resource: Option<String>,
}

/// What the buyer says it accepted. `None` stands for a value that we do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Accepted {
    /// The scheme that the payload is of.
    pub scheme: Option<Scheme>,
    /// The chain that the payload is for.
    pub chain_id: Option<ChainId>,
}

/// What the buyer sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payment {
    /// Which of the offers the buyer chose.
    pub accepted: Accepted,
    /// The fields that were signed.
    pub authorization: Authorization,
    /// The signature as it was sent; `verify` knows its forms.
    pub signature: Bytes,
}

/// What a payer is, and so what judges its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayerKind {
    /// An account without code: the token recovers its key.
    Key,
    /// An account with code, an EIP-7702 delegated one included: the token asks it (ERC-1271).
    Contract,
    /// A wallet that a factory deploys just before the payment (ERC-6492).
    Counterfactual,
}

impl PayerKind {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Contract => "contract",
            Self::Counterfactual => "counterfactual",
        }
    }

    /// The kind with that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Key, Self::Contract, Self::Counterfactual]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// One question to `/verify` or `/settle`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PaymentRequest {
    /// The dialect of the question, and so of the answer.
    pub version: X402Version,
    /// The buyer's side.
    pub payment: Payment,
    /// The merchant's side.
    pub requirements: Requirements,
}
