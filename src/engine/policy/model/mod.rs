//! Random histories of everything that can happen to the engine, and whether its promises hold.
//!
//! The decisions are the real ones: `plan`, `offer`, `bump`, `remedy`, `judge`, `decide`, `fate`,
//! `by_snapshot`, `company_after`, `gas_shares`, `SendAnswer::of_refusal`,
//! `SettlementStatus::may_become`. What surrounds them is modelled: a chain that forks, forgets and
//! lies; books with the rules of the SQL; two processes whose loops do one thing at a time, in the
//! order of `dispatcher.rs` and `follower.rs`, and can stop between any two.
//!
//! A history is a list of operations without references, so one that breaks a promise shrinks to the
//! few that matter. After each operation the invariants are checked; at the end the faults cease,
//! blocks come until nothing is left to do, and the sums must agree.
//!
//! Not modelled: gas balances, the settler's deployment, several endpoints, waiting callers.

mod books;
mod chain;
mod examination;
mod follower_loop;
mod history;
mod invariants;
mod replica;
mod token;
mod wallet_loop;
mod world;

use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, RngSeed},
};

use history::{operation, run};

/// How long a history is at most.
const N_OPERATIONS_MAX: usize = 90;

/// The same histories every time, unless `PROPTEST_RNG_SEED` or `PROPTEST_CASES` say otherwise.
fn config() -> Config {
    let mut config = Config::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(8_453);
    }
    config.failure_persistence =
        Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions")));
    config.max_shrink_iters = 20_000;
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_history_breaks_a_promise(
        operations in prop::collection::vec(operation(), 1..N_OPERATIONS_MAX),
    ) {
        run(&operations).map_err(TestCaseError::fail)?;
    }
}
