//! The door to one EVM chain: reads facts, sends bytes, judges nothing.
//!
//! Knows JSON-RPC and the token's ABI. Does not know settlements, wallets' books or the database.

mod client;
mod error;
mod reply;
mod snapshot;
mod token;

pub use client::{Chain, ChainOptions, FeeFacts};
pub use error::ChainError;
pub use reply::{Block, Log, Receipt};
pub use token::{Fate, TRANSFER_GAS_LIMIT, TokenEvent, fate, transfer_calldata};
