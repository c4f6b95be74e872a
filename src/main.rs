//! The `quittance` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    quittance::cli::run(std::env::args_os()).await
}
