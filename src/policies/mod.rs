//! What the owner of a paying wallet allows it to spend through this facilitator.
//!
//! The owner signs a policy (EIP-712): limits for each payment, for each day and in total, payees, a
//! window of time, and sessions with budgets of their own. It counts for every merchant. Nothing here
//! asks a chain or counts what was spent: who may sign is told, and what is to be counted.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::float_arithmetic
    )
)]

mod document;
mod judge;
mod known;
mod read;
mod report;
mod signers;
mod store;

pub use document::{
    Document, Ending, Kind, Limits, N_PAYEES_MAX, N_SESSIONS_MAX, ReadRequest, Session,
    SpendingPolicy, Subject, signing_types,
};
pub use judge::{InForce, Plan, Purse, Span, Spending};
pub use known::KnownAccounts;
pub use read::{SignedDocument, SignedReadRequest, Unreadable, read_document, read_question};
pub use report::PolicyReport;
pub use signers::signers;
pub use store::{NewDocument, hold_registration, in_force, insert};
