//! What the engine must survive, one fear a file, on a real anvil and a real Postgres.

#[path = "../support/mod.rs"]
mod support;

mod restart;
