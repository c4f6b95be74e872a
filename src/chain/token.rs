//! The part of an EIP-3009 token's ABI that settlement uses.

use alloy::{
    primitives::{Address, B256, Bytes},
    sol,
    sol_types::{SolCall, SolEvent},
};

use crate::{
    domain::{Amount, Authorization, AuthorizationNonce, Evidence},
    verify::EcdsaSignature,
};

use super::{Log, Receipt};

sol! {
    /// EIP-3009 and ERC-20 as Circle's `FiatTokenV2_2` has them.
    interface Token {
        function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s);
        function authorizationState(address authorizer, bytes32 nonce) returns (bool);
        function balanceOf(address account) returns (uint256);
        function name() returns (string);
        function version() returns (string);

        event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
        event AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce);
        event Transfer(address indexed from, address indexed to, uint256 value);
    }
}

/// The gas that one transfer by authorization may use, as the only call of a transaction.
///
/// USDC was measured at 85,704 to a known payee and 103,196 to a new one (settlement-engine reference
/// 3.11); the rest is room for other tokens. The simulation runs under the same limit, so a token
/// that needs more is refused at `/verify` and never costs a revert.
pub const TRANSFER_GAS_LIMIT: u64 = 200_000;

/// The calldata that settles `authorization`, in the overload that USDC runs cheapest.
pub fn transfer_calldata(authorization: &Authorization, signature: &EcdsaSignature) -> Bytes {
    let call = Token::transferWithAuthorizationCall {
        from: authorization.payer,
        to: authorization.payee,
        value: authorization.amount.base_units(),
        validAfter: authorization.valid_after,
        validBefore: authorization.valid_before,
        nonce: *authorization.nonce.as_bytes(),
        v: signature.v(),
        r: signature.r(),
        s: signature.s(),
    };
    call.abi_encode().into()
}

/// The first topics of the events that use up an authorization.
pub const fn authorization_topics() -> [B256; 2] {
    [Token::AuthorizationUsed::SIGNATURE_HASH, Token::AuthorizationCanceled::SIGNATURE_HASH]
}

/// A log by which a token says that an authorization can never be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenEvent {
    /// The token.
    pub asset: Address,
    /// Whose authorization.
    pub payer: Address,
    /// Which of the payer's authorizations.
    pub nonce: AuthorizationNonce,
    /// The transaction that used it up.
    pub transaction_hash: B256,
    /// The index of the log in its block.
    pub log_index: u64,
}

impl TokenEvent {
    /// Reads `AuthorizationUsed` or `AuthorizationCanceled`; other logs are `None`.
    pub fn read(log: &Log) -> Option<Self> {
        let [event, payer, nonce] = log.topics.as_slice() else { return None };
        authorization_topics().contains(event).then(|| Self {
            asset: log.address,
            payer: Address::from_word(*payer),
            nonce: AuthorizationNonce::from_bytes(*nonce),
            transaction_hash: log.transaction_hash,
            log_index: log.log_index,
        })
    }
}

/// The proof in `receipt` that `authorization` was paid in `asset`, if it is there.
///
/// `AuthorizationUsed(payer, nonce)` and, next in the block, `Transfer(payer, payee, amount)`: the
/// order of `EIP3009.sol`. `authorizationState` alone proves nothing: a cancelled authorization and
/// one used for another payee look the same there.
pub fn transfer_evidence(
    receipt: &Receipt,
    asset: Address,
    authorization: &Authorization,
) -> Option<Evidence> {
    if !receipt.succeeded {
        return None;
    }
    let used = [
        Token::AuthorizationUsed::SIGNATURE_HASH,
        authorization.payer.into_word(),
        *authorization.nonce.as_bytes(),
    ];
    let transfer = [
        Token::Transfer::SIGNATURE_HASH,
        authorization.payer.into_word(),
        authorization.payee.into_word(),
    ];
    let amount = |log: &Log| {
        let word: [u8; 32] = log.data.as_ref().try_into().ok()?;
        Some(Amount::from_base_units(alloy::primitives::U256::from_be_bytes(word)))
    };
    let mut logs = receipt.logs.iter().zip(receipt.logs.iter().skip(1));
    let (proof, _) = logs.find(|(first, second)| {
        first.address == asset
            && first.topics == used
            && second.address == asset
            && second.topics == transfer
            && amount(second) == Some(authorization.amount)
    })?;
    Some(Evidence {
        transaction_hash: receipt.transaction_hash,
        block_number: receipt.block_number,
        block_hash: receipt.block_hash,
        log_index: proof.log_index,
    })
}
