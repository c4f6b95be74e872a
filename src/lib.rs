//! Quittance, a self-hosted x402 facilitator.
//!
//! The layers and who may import whom are in `ARCHITECTURE.md`; `tests/architecture.rs` holds them.

pub mod app;
pub mod audit;
pub mod chain;
pub mod cli;
pub mod config;
pub mod db;
pub mod domain;
pub mod engine;
pub mod facilitator;
pub mod faults;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod lists;
pub mod merchants;
pub mod policies;
pub mod promises;
pub mod protocol;
pub mod redis_link;
pub mod telemetry;
pub mod verify;
