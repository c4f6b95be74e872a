//! `quittance key`.

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use crate::{
    config::Settings,
    domain::KeyMode,
    merchants::{self, ApiKey, KeyOwner, NewKey},
};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Create an API key. It is shown once and cannot be shown again.
    Create(CreateArguments),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("owner").required(true)))]
pub(super) struct CreateArguments {
    /// For this merchant, by name or id.
    #[arg(long, group = "owner", value_name = "NAME_OR_ID")]
    merchant: Option<String>,
    /// For an operator.
    #[arg(long, group = "owner")]
    operator: bool,
    /// For chains with `test = true`, and only those.
    #[arg(long)]
    test: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: KeyCommand, settings: &Settings) -> anyhow::Result<()> {
    let KeyCommand::Create(arguments) = command;
    let pool = super::pool(settings).await?;
    let mut conn = pool.acquire().await?;
    let owner = match &arguments.merchant {
        Some(name) => {
            let found = merchants::find_merchant(&mut conn, name).await?;
            KeyOwner::Merchant(found.with_context(|| format!("there is no merchant {name:?}"))?)
        }
        None => KeyOwner::Operator,
    };
    let mode = if arguments.test { KeyMode::Test } else { KeyMode::Live };
    let key = ApiKey::generate(mode);
    let new = NewKey { owner, mode, label: key.label(), hash: key.hash() };
    merchants::create_key(&mut conn, &new).await?;
    if arguments.json {
        println!("{}", json!({ "key": key.reveal(), "mode": mode.as_str() }));
    } else {
        println!("{}", key.reveal());
        eprintln!("This is the only time the key is shown.");
    }
    Ok(())
}
