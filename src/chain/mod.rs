//! The door to one EVM chain: reads facts, sends bytes, judges nothing.
//!
//! Knows JSON-RPC and the token's ABI. Does not know settlements, wallets' books or the database.

mod asset;
mod client;
mod endpoints;
mod error;
mod lens;
mod oracle;
mod reply;
mod send;
mod send_answer;
mod settler;
mod signature;
mod standing;
mod survey;
mod token;
mod trial;

pub use alloy::eips::{BlockId, BlockNumberOrTag};

pub use asset::Asset;
pub use client::{Chain, ChainOptions, FeeFacts};
pub use error::{ChainError, ChainErrorKind, EndpointName};
pub use lens::{CONTRACT_GAS_LIMIT, DEPLOYMENT_GAS_LIMIT, LENS_LIST_MAX, LensMode, Question};
pub use oracle::N_ASKED_MAX;
pub use reply::{Block, Log, Receipt};
pub use send_answer::{SendAnswer, SendReport};
pub use settler::{BatchCall, Carrier, settler_deployment};
pub use signature::SignatureAnswer;
pub use standing::LAG_BLOCKS_MAX;
pub use survey::EndpointReport;
pub use token::{
    Fate, TRANSFER_GAS_LIMIT, TokenEvent, contract_transfer_calldata, fate, payment_calls,
    transfer_calldata,
};
pub use trial::Testimony;
