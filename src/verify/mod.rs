//! Decides whether a payment may be settled. Pure: no I/O, no async, no clock.
//!
//! Two steps around one fetch: [`terms`] judges what needs no chain, `chain` fetches a
//! [`ChainSnapshot`], and [`against`] judges the terms by it. Together they are the checks of npm
//! `@x402/evm` 2.27.0 (`src/exact/facilitator/eip3009.ts`), in its order.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::float_arithmetic
    )
)]

mod against;
mod digest;
mod signature;
mod terms;

pub use against::{ChainSnapshot, Simulation, Verified, against};
pub use digest::authorization_digest;
pub use signature::{Consent, Deployment, EcdsaSignature, Factories, Unwrapped};
pub use terms::{MINING_MARGIN, PaymentKey, Statement, Terms, repeats, statement, terms};
