//! Quittance as its callers see it: HTTP and the command line, over a real chain and real books.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod assets;
mod audit;
mod auth;
mod callers;
mod caps;
mod caps_gas;
mod caps_http;
mod cli;
mod coalescing;
mod desk;
mod endpoints;
mod fair_shares;
mod idempotency;
mod key_life;
mod keys;
mod lists;
mod malformed;
mod merchants;
mod onboarding;
mod oracle;
mod payments;
mod rates;
mod rates_shared;
mod refusals;
mod sanctions;
mod shapes;
mod smart_wallets;
mod spending;
mod spending_owners;
mod spending_sessions;
mod token_oracle;
mod trouble;
