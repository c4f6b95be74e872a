//! Proof that a payment was made.

use alloy::primitives::B256;

/// Where the token said that this authorization moved this amount from payer to payee.
///
/// An `AuthorizationUsed(payer, nonce)` log, directly followed by the matching
/// `Transfer(payer, payee, amount)`. It proves a payment for as long as its block is canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The transaction that emitted the logs; not always one of ours.
    pub transaction_hash: B256,
    /// The height of the block.
    pub block_number: u64,
    /// The block. Equal heights can hold different blocks, so only the hash identifies it.
    pub block_hash: B256,
    /// The index of `AuthorizationUsed` in the block.
    pub log_index: u64,
}
