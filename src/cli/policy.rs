//! `quittance policy`.

use alloy::primitives::Address;
use anyhow::Context;
use clap::{Args, Subcommand};

use crate::{
    config::Settings,
    domain::{Amount, ChainId},
    facilitator,
    policies::{Document, PolicyReport, Span, Subject},
};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Show what is in force about a paying account, and what is left of its budgets.
    Show(ShowArguments),
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// Where, such as `eip155:8453`.
    #[arg(long, value_name = "CAIP2", value_parser = chain_id)]
    chain: ChainId,
    /// Who pays.
    #[arg(long, value_name = "ADDRESS")]
    account: Address,
    /// In what.
    #[arg(long, value_name = "ADDRESS")]
    asset: Address,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn chain_id(text: &str) -> Result<ChainId, String> {
    text.parse().map_err(|_| "not a chain such as eip155:8453".to_owned())
}

pub(super) async fn run(command: PolicyCommand, settings: &Settings) -> anyhow::Result<()> {
    let PolicyCommand::Show(arguments) = command;
    let ShowArguments { chain, account, asset, json } = arguments;
    let pool = super::pool(settings).await?;
    let mut conn = pool.acquire().await?;
    let subject = Subject { chain_id: chain, account, asset };
    let report = facilitator::report_policy(&mut conn, subject).await?;
    let report = report.with_context(|| {
        format!("no spending policy was ever registered for {account} and {asset} on {chain}")
    })?;
    if json {
        println!("{}", report.to_json());
        return Ok(());
    }
    print(&report);
    Ok(())
}

fn print(report: &PolicyReport) {
    let in_force = &report.in_force;
    println!("{} by {}, policy {}", report.state(), in_force.owner, in_force.policy_id);
    let Document::Policy(policy) = &in_force.document else { return };
    let limits = &policy.limits;
    println!("valid from {} until before {}", limits.valid_after, limits.valid_before);
    if limits.per_payment != Amount::MAX {
        println!("per payment: {}", limits.per_payment);
    }
    for (purse, used) in &report.purses {
        let whose = if purse.subject.is_empty() { "policy" } else { &purse.subject };
        let span = match purse.span {
            Span::Day => "today",
            Span::Total => "in total",
        };
        match purse.left(*used) {
            Some(left) => println!("{whose}, {span}: {used} spent, {left} left"),
            None => println!("{whose}, {span}: {used} spent, no limit"),
        }
    }
}
