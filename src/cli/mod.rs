//! The command line. Exit status 0, 1 for a failure, 64 for unusable arguments or settings.

mod actor;
mod audit;
mod cap;
mod dev;
mod doctor;
mod duration;
mod floor;
mod key;
mod list;
mod merchant;
mod payee;
mod policy;
mod sanctions;
mod serve;
mod wallet;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use sqlx::PgPool;

use crate::{
    config::{self, ConfigError, Settings},
    db,
};

/// `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

/// An argument that cannot be used with these settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UnusableArgument(String);

/// A self-hosted x402 facilitator: verifies and settles HTTP payments on EVM chains.
#[derive(Debug, Parser)]
#[command(name = "quittance", version, propagate_version = true)]
struct Arguments {
    /// Settings file, TOML or YAML. Environment variables `QUITTANCE__SECTION__KEY` win over it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: a private Postgres, a local chain, the service, and a first payment.
    Dev(dev::DevArguments),
    /// Run the service.
    Serve,
    /// Bring the database up to date.
    Migrate,
    /// Look at everything that a settlement needs, and say what is wrong.
    Doctor(doctor::DoctorArguments),
    /// Merchants: whoever is paid.
    #[command(subcommand)]
    Merchant(merchant::MerchantCommand),
    /// Hot wallets: the accounts that pay gas. Replicas that run notice changes within a second.
    #[command(subcommand)]
    Wallet(wallet::WalletCommand),
    /// API keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Show who changed merchants, keys, limits, lists and policies.
    Audit(audit::AuditArguments),
    /// Payees: the addresses at which merchants are paid. Replicas that run notice changes within a second.
    #[command(subcommand)]
    Payee(payee::PayeeCommand),
    /// Spending policies, which the owners of paying wallets sign.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Who may not pay or be paid, in what, and by whose factories.
    #[command(subcommand)]
    List(list::ListCommand),
    /// Sanctions files.
    #[command(subcommand)]
    Sanctions(sanctions::SanctionsCommand),
    /// Caps: how much is taken of merchants, keys and payers.
    #[command(subcommand)]
    Cap(cap::CapCommand),
    /// Floors: no payment that moves less than its gas.
    #[command(subcommand)]
    Floor(floor::FloorCommand),
}

/// Runs the command that `arguments` name.
pub async fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing helps if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match carry_out(arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quittance: {error:#}");
            let is_usage = error.downcast_ref::<ConfigError>().is_some()
                || error.downcast_ref::<UnusableArgument>().is_some();
            ExitCode::from(if is_usage { EXIT_USAGE } else { 1 })
        }
    }
}

async fn carry_out(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let without_wallets = || config::load(arguments.config.as_deref(), std::env::vars());
    let settings = || without_wallets().and_then(Settings::check_wallets);
    match arguments.command {
        Command::Dev(dev) => dev::run(dev).await?,
        Command::Serve => serve::run(&settings()?).await?,
        Command::Migrate => {
            let pool = db::connect_patiently(&without_wallets()?.database.url).await?;
            db::migrate(&pool).await?;
            println!("the database is up to date");
        }
        Command::Doctor(doctor) => return doctor::run(doctor, &settings()?).await,
        Command::Merchant(command) => merchant::run(command, &settings()?).await?,
        Command::Wallet(command) => wallet::run(command, &without_wallets()?).await?,
        Command::Audit(arguments) => audit::run(arguments, &without_wallets()?).await?,
        Command::Key(command) => key::run(command, &settings()?).await?,
        Command::Payee(command) => payee::run(command, &without_wallets()?).await?,
        Command::Policy(command) => policy::run(command, &without_wallets()?).await?,
        Command::List(command) => list::run(command, &without_wallets()?).await?,
        Command::Sanctions(command) => sanctions::run(command)?,
        Command::Cap(command) => cap::run(command, &without_wallets()?).await?,
        Command::Floor(command) => floor::run(command, &without_wallets()?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn pool(settings: &Settings) -> anyhow::Result<PgPool> {
    Ok(db::connect(&settings.database.url, 1).await?)
}
