//! The books: settlements, their events, the evidence and the double entries.
//!
//! Every function takes a connection: its caller owns the database transaction, so state, event and
//! money commit together. Nothing here reads a chain or decides anything about a payment; the
//! database's own constraints refuse what must never happen.

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
mod claim;
mod entry;
mod event;
mod filter;
mod promised;
mod settlement;
mod transition;

pub use answer::{
    ANSWER_RIGHT, decided, hand_out_success, release_answer_rights, renew_answer_rights,
    take_answer_right,
};
pub use claim::{Claim, ClaimOutcome, claim, hold_account, hold_payer};
pub use entry::{GasShare, post_gas, reverse_gas};
pub use filter::{
    Filter, FilterSeen, FilterState, LiveAccount, Moment, begin_filter, distrust_filter, filter,
    has_settled, live_accounts, moment, take_time, trust_filter,
};
pub use promised::{PromiseKey, Promised, Promises, promised};
pub use settlement::{
    Settlement, find_by_authorization, find_by_idempotency_key, settlement, settlements,
};
pub use transition::{Proof, fail, include, orphan, promote, requeue, submit};
