//! The door to one EVM chain: reads facts, sends bytes, judges nothing.
//!
//! Knows JSON-RPC and the token's ABI. Does not know settlements, wallets' books or the database.

mod client;
mod endpoints;
mod error;
mod reply;
mod send;
mod send_answer;
mod settler;
mod snapshot;
mod standing;
mod survey;
mod token;

pub use alloy::eips::{BlockId, BlockNumberOrTag};

pub use client::{Chain, ChainOptions, FeeFacts};
pub use error::{ChainError, ChainErrorKind, EndpointName};
pub use reply::{Block, Log, Receipt};
pub use send_answer::{SendAnswer, SendReport};
pub use settler::{BatchCall, Carrier, settler_deployment};
pub use standing::LAG_BLOCKS_MAX;
pub use token::{Fate, TRANSFER_GAS_LIMIT, TokenEvent, fate, transfer_calldata};
