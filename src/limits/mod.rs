//! How much: budgets that cannot be exceeded.
//!
//! Budgets are counted in the claim's database transaction and never rest on Redis.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::float_arithmetic
    )
)]

mod budget;

pub use budget::{Budget, Period, Used, change_rules, hold_rules, reserve, used};
