//! Trouble of the engine. It is retried, never turned into a verdict.

use alloy::primitives::Address;

use crate::{chain::ChainError, db::DbError, domain::ChainId};

use super::{keys::KeyError, policy::fees::FeesTooHigh};

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
    /// A wallet that is to sign has transactions that are not mined: its next nonce is not ours to know.
    #[error("wallet {address} has {n} unmined transactions; wait until they are mined")]
    PendingTransactions {
        /// Which wallet.
        address: Address,
        /// How many.
        n: u64,
    },
    /// A wallet that is to sign has EIP-7702 code. Nodes hold few unmined transactions of such an account
    /// (one in geth, four in Base's), and its coin can be moved without its account nonce.
    #[error(
        "wallet {address} carries code, an EIP-7702 delegation; revoke it, or use another account"
    )]
    HasCode {
        /// Which wallet.
        address: Address,
    },
    /// Another process owns what this one was about to write.
    #[error("the lease {name} is another's")]
    LeaseLost {
        /// Which.
        name: String,
    },
    /// The key of a wallet cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A stored attempt is not a transaction of ours.
    #[error("a stored attempt cannot be read as a transaction")]
    UnreadableAttempt,
    /// Code of ours panicked; the step was given up.
    #[error("a step panicked")]
    Panicked,
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
