//! `quittance sanctions`. Needs no settings.

use std::{io::Read as _, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::{
    app,
    domain::UnixTime,
    lists::{self, SanctionsFile},
};

#[derive(Debug, Subcommand)]
pub(super) enum SanctionsCommand {
    /// Read a sanctions file as the service would, and say what it holds.
    Check(CheckArguments),
    /// Make a sanctions file of the addresses on standard input, one a line.
    Seal(SealArguments),
}

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The file.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SealArguments {
    /// Who made the list.
    #[arg(long, value_name = "TEXT")]
    source: String,
    /// What this version is called.
    #[arg(long, value_name = "TEXT")]
    list_version: String,
    /// As of when it stands, in RFC 3339; otherwise as of now.
    #[arg(long, value_name = "TIME", value_parser = UnixTime::parse_rfc3339)]
    date: Option<UnixTime>,
}

pub(super) fn run(command: SanctionsCommand) -> anyhow::Result<()> {
    match command {
        SanctionsCommand::Check(arguments) => check(&arguments),
        SanctionsCommand::Seal(arguments) => seal(&arguments),
    }
}

fn check(arguments: &CheckArguments) -> anyhow::Result<()> {
    let path = arguments.file.display();
    let bytes = std::fs::read(&arguments.file).with_context(|| format!("read {path}"))?;
    let file = SanctionsFile::parse(&bytes).with_context(|| format!("{path} cannot be used"))?;
    if arguments.json {
        println!("{}", file.told());
        return Ok(());
    }
    let header = file.header();
    println!("{} addresses", file.n_addresses());
    println!("source   {}", header.source);
    println!("version  {}", header.version);
    println!("date     {}", header.date.to_rfc3339());
    println!("sha256   {}", header.sha256);
    Ok(())
}

fn seal(arguments: &SealArguments) -> anyhow::Result<()> {
    let mut body = String::new();
    std::io::stdin().read_to_string(&mut body).context("read addresses")?;
    let date = arguments.date.unwrap_or_else(app::now);
    print!("{}", lists::seal(&arguments.source, &arguments.list_version, date, &body)?);
    Ok(())
}
