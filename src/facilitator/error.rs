//! What keeps a question from being answered. None of it is a verdict on a payment.

use std::sync::Arc;

use crate::{
    chain::ChainError,
    db::DbError,
    domain::KeyMode,
    engine::{QueueFull, TooManyWaiting},
};

use super::coalesce::Trouble;

/// Our trouble, or the merchant's.
#[derive(Debug, thiserror::Error)]
pub enum FacilitatorError {
    /// The chain could not be read.
    #[error(transparent)]
    Chain(#[from] Arc<ChainError>),
    /// The database could not be read or written.
    #[error(transparent)]
    Db(#[from] Arc<DbError>),
    /// Too many payments at a time.
    #[error("too many payments are being verified or settled")]
    Busy,
    /// The payer's money depends on what the newest blocks did, and the books have not read them.
    #[error("the books have not read the newest blocks, and the payer's balance depends on them")]
    BooksBehind,
    /// The list of those who are sanctioned is older than the operator allows.
    #[error("the sanctions list is older than it may be")]
    SanctionsStale,
    /// The payment is promised, and no transaction could be signed for it in time. It may still be
    /// paid; the same request again will tell.
    #[error("the payment is queued and has no transaction yet")]
    NotSentYet,
    /// The `Idempotency-Key` belongs to another payment of this merchant.
    #[error("the Idempotency-Key was used for another payment")]
    IdempotencyKeyReused,
    /// The merchant was suspended or closed while it asked.
    #[error("the merchant was suspended or closed")]
    MerchantStopped,
    /// The key was revoked or expired while it was used.
    #[error("nobody holds this API key any more")]
    KeyGone,
    /// A test key on a live chain, or the other way round.
    #[error("a {} key cannot be used on a {} chain", key.as_str(), chain.as_str())]
    WrongMode {
        /// What the key is for.
        key: KeyMode,
        /// What the chain is for.
        chain: KeyMode,
    },
}

impl From<ChainError> for FacilitatorError {
    fn from(error: ChainError) -> Self {
        Self::Chain(Arc::new(error))
    }
}

impl From<DbError> for FacilitatorError {
    fn from(error: DbError) -> Self {
        Self::Db(Arc::new(error))
    }
}

impl From<Trouble> for FacilitatorError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Chain(error) => Self::Chain(error),
            Trouble::Db(error) => Self::Db(error),
            Trouble::Busy => Self::Busy,
        }
    }
}

impl From<TooManyWaiting> for FacilitatorError {
    fn from(_: TooManyWaiting) -> Self {
        Self::Busy
    }
}

impl From<QueueFull> for FacilitatorError {
    fn from(_: QueueFull) -> Self {
        Self::Busy
    }
}
