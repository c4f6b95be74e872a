//! How much: budgets that cannot be exceeded, and rates.
//!
//! Budgets are counted in the claim's database transaction and never rest on Redis. Rates keep the house
//! in order and are counted in process or in Redis; no payment is safe or unsafe by them.

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
mod caps;
mod rate;

pub use budget::{Budget, Period, Used, change_rules, hold_rules, reserve, used};
pub use caps::{
    Ask, Cap, CapBook, CapError, CapId, CapPeriod, CapTerms, Floor, Forecast, InvalidCap, Measure,
    Place, Setter, Standing, Subject, Usage, Viewer, Visit, cap, caps, count_earlier, floors,
    gas_used, hold_gas, judge, key_merchant, remove_cap, remove_floor, set_cap, set_floor,
    standing, usage,
};
pub use rate::{Allowance, ClassLimit, RATE_SCRIPT, RateLimits, Rates, Seat, TooMuch};
