//! What tests stand on: a real Postgres, a real anvil, and the real binary, started afresh for each
//! test and spoken to through the doors that users have.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, reason = "a module of several binaries has no crate to be private in")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

mod caps;
mod dead_endpoint;
mod draft;
mod fleet;
mod node;
mod pg_proxy;
mod proxy;
mod redis;
mod service;
mod smart;
mod spare_node;
mod spending;
mod token;
mod world;

pub use dead_endpoint::DeadEndpoint;
pub use draft::{Draft, Signed};
pub use fleet::{LEASE_MS, N_IN_FLIGHT_MAX, N_TOGETHER_MAX, SHARED_KEYS};
pub use node::Node;
pub use pg_proxy::PgProxy;
pub use proxy::{Dialect, Envelope, Fault, Proxy, Refusal, Sent, Trouble};
pub use redis::{Door, REDIS_URL, Redis};
pub use service::{Answer, Service, WITHOUT_LIMITS};
pub use smart::{code_of, create_account, in_wrapper, of_key_zero, signature_of, signed_by};
pub use spending::{session, sign, signed, units, unlimited, with_signature};
pub use token::{Emits, token_that_emits};
pub use world::{BLOCK_GAS_LIMIT, DATABASE_URL, RPC_URL, WALLET_MNEMONIC, World, now};
