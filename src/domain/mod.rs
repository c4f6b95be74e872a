//! The vocabulary of payments.
//!
//! Nothing here performs I/O, reads a clock or knows a wire format.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::float_arithmetic
    )
)]

mod amount;
mod calendar;
mod chain_id;
mod evidence;
mod identity;
mod payment;
mod rate;
mod reason;
mod settlement;
mod time;

pub use amount::{Amount, AmountError};
pub use calendar::NotATime;
pub use chain_id::{ChainId, ChainIdError};
pub use evidence::Evidence;
pub use identity::{ApiKeyId, IdempotencyKey, InvalidIdempotencyKey, KeyMode, MerchantId};
pub use payment::{
    Accepted, Authorization, AuthorizationNonce, PayerKind, Payment, PaymentRequest, Requirements,
    Scheme, TokenDomain, X402Version,
};
pub use rate::{
    OwnRates, PER_SECOND_MAX, Rate, RateClass, RateError, UnknownRateClass, WINDOW_MAX,
};
pub use reason::{InvalidReason, Refusal};
pub use settlement::{Depth, SettlementId, SettlementStatus, UnknownDepth, UnknownStatus};
pub use time::UnixTime;
