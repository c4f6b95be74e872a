//! Trouble of the engine. It is retried, never turned into a verdict.

use alloy::primitives::Address;

use crate::{chain::ChainError, db::DbError, domain::ChainId};

use super::fees::FeesTooHigh;

/// What stopped a step of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The chain could not be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The database could not be read or written.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A reorganization reaches below the blocks that are kept. A person must look.
    #[error("a reorganization of {chain_id} reaches below block {number}, the oldest that is kept")]
    ReorgTooDeep {
        /// Which chain.
        chain_id: ChainId,
        /// The oldest block kept.
        number: u64,
    },
    /// Somebody else sends from our wallet. A person must look.
    #[error(
        "wallet {address} on {chain_id} has {on_chain} transactions on chain and {recorded} in the books: \
         its key is used elsewhere, or the database is not this wallet's"
    )]
    ForeignTransactions {
        /// Which chain.
        chain_id: ChainId,
        /// Which wallet.
        address: Address,
        /// The account nonce that the chain tells.
        on_chain: u64,
        /// The account nonce that the books expect.
        recorded: u64,
    },
    /// The chain asks more than is offered. What waits, waits on.
    #[error(transparent)]
    FeesTooHigh(#[from] FeesTooHigh),
    /// A step of a loop took longer than any step does; it was given up and is begun anew.
    #[error("a step took longer than {seconds} seconds")]
    Stalled {
        /// How long it was given.
        seconds: u64,
    },
    /// A transaction could not be signed.
    #[error("sign a transaction of {address}")]
    Sign {
        /// Which wallet.
        address: Address,
        /// Why not.
        #[source]
        source: alloy::signers::Error,
    },
}
