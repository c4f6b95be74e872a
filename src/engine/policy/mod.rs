//! What the engine decides, apart from how it reads and writes: facts in, decisions out. No I/O, no
//! clock, so that a model can drive it through every order of events.

pub(super) mod batch;
pub(super) mod block;
pub(super) mod fees;
pub(super) mod gas;
pub(super) mod nonce;
pub(super) mod stuck;
pub(super) mod verdict;

#[cfg(test)]
mod model;
