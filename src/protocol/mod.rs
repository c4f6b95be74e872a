//! The wire format of x402, versions 1 and 2: questions in, answers out.
//!
//! Knows field names and spellings. Does not judge a payment, and does not know how it travels.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::float_arithmetic
    )
)]

mod answer;
mod networks;
mod object;
mod request;
mod supported;
mod values;

pub use answer::{Code, Reason, SettleAnswer, VerifyAnswer};
pub use networks::{chain_id, network_name};
pub use request::{ParseError, Unparsed, parse_request};
pub use supported::Supported;
pub use values::{Expected, address, signature, uint};
