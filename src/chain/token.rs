//! The part of an EIP-3009 token's ABI that settlement uses.

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    sol,
    sol_types::{SolCall, SolEvent},
};

use crate::{
    domain::{Amount, Authorization, AuthorizationNonce, Evidence},
    verify::{Consent, EcdsaSignature, Unwrapped},
};

use super::{Log, Receipt};

sol! {
    /// EIP-3009 and ERC-20 as Circle's `FiatTokenV2_2` has them.
    interface Token {
        function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s);
        function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature);
        function authorizationState(address authorizer, bytes32 nonce) returns (bool);
        function balanceOf(address account) returns (uint256);
        function name() returns (string);
        function version() returns (string);
        function decimals() returns (uint8);
        function DOMAIN_SEPARATOR() returns (bytes32);

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

/// The calldata that settles `authorization` by the payer's own key, in the overload that USDC runs
/// cheapest. The lens makes the same.
pub fn transfer_calldata(authorization: &Authorization, signature: &EcdsaSignature) -> Bytes {
    let call = Token::transferWithAuthorization_0Call {
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

/// The calldata that settles `authorization` by the word of the payer's contract (ERC-1271), which sees
/// `signature` as it is. The lens makes the same.
pub fn contract_transfer_calldata(authorization: &Authorization, signature: &Bytes) -> Bytes {
    let call = Token::transferWithAuthorization_1Call {
        from: authorization.payer,
        to: authorization.payee,
        value: authorization.amount.base_units(),
        validAfter: authorization.valid_after,
        validBefore: authorization.valid_before,
        nonce: *authorization.nonce.as_bytes(),
        signature: signature.clone(),
    };
    call.abi_encode().into()
}

/// The calls that pay `authorization` of `asset` by what the payer agreed with, in their order: the token's
/// is the last, and the factory's comes before it where the payer's wallet is to be deployed.
pub fn payment_calls(
    asset: Address,
    authorization: &Authorization,
    consent: &Consent,
) -> Vec<(Address, Bytes)> {
    match consent {
        Consent::Key(signature) => vec![(asset, transfer_calldata(authorization, signature))],
        Consent::Contract(Unwrapped { signature, deployment }) => {
            let deployment = deployment.iter().map(|call| (call.factory, call.calldata.clone()));
            let payment = (asset, contract_transfer_calldata(authorization, signature));
            deployment.chain([payment]).collect()
        }
    }
}

/// The first topics of the events that use up an authorization.
pub(super) const fn authorization_topics() -> [B256; 2] {
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
        })
    }
}

/// What a receipt says of one authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Paid, and this proves it.
    Paid(Evidence),
    /// Cancelled, or used without the transfer that was promised.
    Consumed,
    /// The receipt does not say: no log of it, or more than one payment that it could be.
    Unknown,
}

/// What `receipt` says of `authorization` of `asset`. Only logs that are there say anything.
///
/// Paid is `AuthorizationUsed(payer, nonce)` and, next in the block, `Transfer(payer, payee, amount)`:
/// the order of `EIP3009.sol`. A token may order them otherwise; then the transfer must be of the only
/// authorization that the payer used in the transaction. `authorizationState` proves neither payment
/// nor failure: paid, cancelled and used for another payee look the same there.
pub fn fate(receipt: &Receipt, asset: Address, authorization: &Authorization) -> Fate {
    if !receipt.succeeded {
        return Fate::Unknown;
    }
    let (payer, nonce) = (authorization.payer.into_word(), *authorization.nonce.as_bytes());
    let used = [Token::AuthorizationUsed::SIGNATURE_HASH, payer, nonce];
    let cancelled = [Token::AuthorizationCanceled::SIGNATURE_HASH, payer, nonce];
    let logs: Vec<&Log> = receipt.logs.iter().filter(|log| log.address == asset).collect();
    if logs.iter().any(|log| log.topics == cancelled) {
        return Fate::Consumed;
    }
    let Some(proof) = logs.iter().find(|log| log.topics == used) else { return Fate::Unknown };
    let transfers = logs.iter().filter(|log| is_transfer(log, authorization));
    let n_used = logs.iter().filter(|log| log.topics.get(..2) == used.get(..2)).count();
    let (mut n_transfers, mut is_next) = (0_usize, false);
    for transfer in transfers {
        n_transfers += 1;
        is_next |= proof.log_index.checked_add(1) == Some(transfer.log_index);
    }
    match (n_transfers, is_next) {
        (0, _) => Fate::Consumed,
        (_, true) => Fate::Paid(evidence(receipt, proof)),
        (_, false) if n_used == 1 => Fate::Paid(evidence(receipt, proof)),
        (_, false) => Fate::Unknown,
    }
}

/// What `receipt`, which is of a payment by `authorization` that was made, lacks as a proof of it.
pub(super) fn missing_proof(
    receipt: &Receipt,
    asset: Address,
    authorization: &Authorization,
) -> Option<&'static str> {
    match fate(receipt, asset, authorization) {
        Fate::Paid(_) => None,
        Fate::Consumed => Some(
            "there is no Transfer event of the whole amount from the payer to the payee beside its \
             AuthorizationUsed event",
        ),
        Fate::Unknown => Some(
            "there is no AuthorizationUsed event of the payer and the authorization nonce, or it \
             cannot be told to which Transfer event it belongs",
        ),
    }
}

fn is_transfer(log: &Log, authorization: &Authorization) -> bool {
    let transfer = [
        Token::Transfer::SIGNATURE_HASH,
        authorization.payer.into_word(),
        authorization.payee.into_word(),
    ];
    let word: Option<[u8; 32]> = log.data.as_ref().try_into().ok();
    let amount = word.map(|word| Amount::from_base_units(U256::from_be_bytes(word)));
    log.topics == transfer && amount == Some(authorization.amount)
}

const fn evidence(receipt: &Receipt, proof: &Log) -> Evidence {
    Evidence {
        transaction_hash: receipt.transaction_hash,
        block_number: receipt.block_number,
        block_hash: receipt.block_hash,
        log_index: proof.log_index,
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256, U256};

    use super::{Fate, Log, Receipt, SolEvent, Token, fate};
    use crate::domain::{Amount, Authorization, AuthorizationNonce};

    const ASSET: Address = Address::repeat_byte(9);
    const AUTHORIZATION: Authorization = Authorization {
        payer: Address::repeat_byte(1),
        payee: Address::repeat_byte(2),
        amount: Amount::from_base_units(U256::from_limbs([5, 0, 0, 0])),
        valid_after: U256::ZERO,
        valid_before: U256::MAX,
        nonce: AuthorizationNonce::from_bytes(B256::repeat_byte(3)),
    };

    fn log(topics: Vec<B256>, amount: u64) -> Log {
        Log {
            address: ASSET,
            topics,
            data: U256::from(amount).to_be_bytes_vec().into(),
            log_index: 0,
            transaction_hash: B256::ZERO,
            block_hash: B256::ZERO,
            block_number: 1,
        }
    }

    fn used(nonce: u8) -> Log {
        let payer = AUTHORIZATION.payer.into_word();
        log(vec![Token::AuthorizationUsed::SIGNATURE_HASH, payer, B256::repeat_byte(nonce)], 0)
    }

    fn cancelled() -> Log {
        let payer = AUTHORIZATION.payer.into_word();
        log(vec![Token::AuthorizationCanceled::SIGNATURE_HASH, payer, B256::repeat_byte(3)], 0)
    }

    fn transfer(payee: u8, amount: u64) -> Log {
        let (from, to) = (AUTHORIZATION.payer.into_word(), Address::repeat_byte(payee).into_word());
        log(vec![Token::Transfer::SIGNATURE_HASH, from, to], amount)
    }

    fn other(mut log: Log) -> Log {
        log.address = Address::repeat_byte(8);
        log
    }

    #[test]
    fn only_logs_that_are_there_say_anything() {
        let (paid, consumed, unknown) = ("paid", "consumed", "unknown");
        for (what, logs, expected) in [
            ("nothing", vec![], unknown),
            ("the order of EIP3009.sol", vec![used(3), transfer(2, 5)], paid),
            ("the other order", vec![transfer(2, 5), used(3)], paid),
            ("a log between", vec![used(3), other(used(3)), transfer(2, 5)], paid),
            ("another amount", vec![used(3), transfer(2, 4)], consumed),
            ("another payee", vec![used(3), transfer(7, 5)], consumed),
            ("no transfer", vec![used(3)], consumed),
            ("cancelled", vec![cancelled()], consumed),
            ("another nonce", vec![used(4), transfer(2, 5)], unknown),
            ("another token", vec![other(used(3)), other(transfer(2, 5))], unknown),
            ("another token's transfer", vec![used(3), other(transfer(2, 5))], consumed),
            ("one of two", vec![used(4), transfer(2, 5), used(3), transfer(2, 5)], paid),
            ("one of two that cannot be told", vec![transfer(2, 5), used(3), used(4)], unknown),
        ] {
            for succeeded in [true, false] {
                let numbered = logs.iter().zip(0_u64..).map(|(log, log_index)| {
                    let mut log: Log = log.clone();
                    log.log_index = log_index;
                    log
                });
                let receipt = Receipt {
                    transaction_hash: B256::ZERO,
                    block_hash: B256::ZERO,
                    block_number: 1,
                    succeeded,
                    fee_wei: U256::ZERO,
                    gas_used: 0,
                    l1_fee_wei: U256::ZERO,
                    logs: numbered.collect(),
                };
                let found = match fate(&receipt, ASSET, &AUTHORIZATION) {
                    Fate::Paid(_) => paid,
                    Fate::Consumed => consumed,
                    Fate::Unknown => unknown,
                };
                assert_eq!(found, if succeeded { expected } else { unknown }, "{what}");
            }
        }
    }
}
