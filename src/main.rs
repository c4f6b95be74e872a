//! The `quittance` command.

use std::{num::NonZero, process::ExitCode, thread::available_parallelism};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // The HTTP server has a thread for each core. What runs here waits for chains and for Postgres most
    // of the time, and more threads would only wake each other.
    let n_cores = available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((n_cores / 2).max(1))
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(quittance::cli::run(std::env::args_os())),
        Err(error) => {
            eprintln!("start threads: {error}");
            ExitCode::FAILURE
        }
    }
}
