//! Tokens that are not USDC: as little bytecode as does what a test needs.

use alloy::{
    hex,
    primitives::{Bytes, keccak256},
};

/// What a token emits when it is given an authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emits {
    /// `AuthorizationUsed(payer, nonce)`.
    Used,
    /// `Transfer(payer, payee, amount)`.
    Transfer,
    /// The same of twice the amount.
    AnotherTransfer,
}

/// Calldata of more than 128 bytes is a transfer: jumps to 0x14. To all else it answers 0, and 2^200 to
/// calldata of 36 bytes, which is `balanceOf`.
const VIEWS: &str = "608036116014576024361460c81b5f5260205ff3";

/// A token that takes every authorization any number of times, and emits these in this order. It has
/// neither a name nor a domain separator.
pub fn token_that_emits(events: &[Emits]) -> Bytes {
    let mut code = format!("{VIEWS}5b");
    for event in events {
        let topic = |signature: &str| hex::encode(keccak256(signature));
        match event {
            // LOG3 of calldata words 5 and 0.
            Emits::Used => {
                let topic = topic("AuthorizationUsed(address,bytes32)");
                code.push_str(&format!("60a4356004357f{topic}5f5fa3"));
            }
            // LOG3 of calldata words 1 and 0, with word 2 as data.
            Emits::Transfer | Emits::AnotherTransfer => {
                let topic = topic("Transfer(address,address,uint256)");
                let double = if *event == Emits::AnotherTransfer { "60011b" } else { "" };
                code.push_str(&format!("604435{double}5f526024356004357f{topic}60205fa3"));
            }
        }
    }
    code.push_str("00");
    hex::decode(code).unwrap().into()
}
