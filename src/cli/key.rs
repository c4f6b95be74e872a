//! `quittance key`.

use anyhow::Context as _;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    config::Settings,
    domain::{ApiKeyId, KeyMode},
    merchants::{
        ApiKey, ApiKeys, Authority, KeyOwner, KeyRecord, Merchants, Name, NewKey, Pepper, Scopes,
    },
};

use super::{UnusableArgument, actor::actor, duration::seconds};

/// How many keys are read at a time.
const PAGE: u32 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Create an API key. It is shown once and cannot be shown again.
    Create(CreateArguments),
    /// Show keys: their beginnings, what they may be used for, and when they were last used.
    List(ListArguments),
    /// Create a key that takes the place of another one, which goes on working for a while.
    Rotate(RotateArguments),
    /// Make a key void. Replicas that run refuse it within a second.
    Revoke(RevokeArguments),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("owner").required(true)))]
pub(super) struct OwnerArguments {
    /// Of this merchant, by name or id.
    #[arg(long, group = "owner", value_name = "NAME_OR_ID")]
    merchant: Option<String>,
    /// Of operators.
    #[arg(long, group = "owner")]
    operator: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    #[command(flatten)]
    owner: OwnerArguments,
    /// For chains with `test = true`, and only those.
    #[arg(long)]
    test: bool,
    /// What it may be used for, separated by commas: verify, settle, read, manage. Without it, a merchant's
    /// key has the first three, and an operator's read and manage.
    #[arg(long, value_name = "SCOPES")]
    scopes: Option<Scopes>,
    /// How long it works, such as `90d`. Without it, until it is revoked.
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    expires_in: Option<i64>,
    /// What to call it.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    owner: OwnerArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RotateArguments {
    /// The key, by its id in `quittance key list`.
    #[arg(value_name = "KEY_ID")]
    key: Uuid,
    /// How long the old key goes on working.
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "24h")]
    overlap: i64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArguments {
    /// The key, by its id in `quittance key list`.
    #[arg(value_name = "KEY_ID")]
    key: Uuid,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: KeyCommand, settings: &Settings) -> anyhow::Result<()> {
    let pepper = Pepper::new(settings.keys.pepper()?);
    let pool = super::pool(settings).await?;
    let (keys, merchants) = (ApiKeys::new(pool.clone(), pepper), Merchants::new(pool));
    match command {
        KeyCommand::Create(arguments) => create(&arguments, &keys, &merchants).await,
        KeyCommand::List(arguments) => list(&arguments, &keys, &merchants).await,
        KeyCommand::Rotate(arguments) => {
            let (old, overlap) = (ApiKeyId::from_uuid(arguments.key), arguments.overlap);
            let made = keys.rotate(&actor(), Authority::Operator, old, overlap).await?;
            show_once(&made, arguments.json);
            Ok(())
        }
        KeyCommand::Revoke(arguments) => {
            let key = ApiKeyId::from_uuid(arguments.key);
            let revoked = keys.revoke(&actor(), Authority::Operator, key).await?;
            if arguments.json {
                println!("{}", revoked.shown());
            } else {
                println!("key {} ({}…) is revoked", arguments.key, revoked.label);
            }
            Ok(())
        }
    }
}

async fn create(
    arguments: &CreateArguments,
    keys: &ApiKeys,
    merchants: &Merchants,
) -> anyhow::Result<()> {
    let owner = owner(&arguments.owner, merchants).await?;
    let usual = match owner {
        KeyOwner::Merchant(_) => Scopes::OF_MERCHANTS,
        KeyOwner::Operator => Scopes::OF_OPERATORS,
    };
    let scopes = arguments.scopes.unwrap_or(usual);
    if owner == KeyOwner::Operator && !scopes.within(usual) {
        let problem = "an operator's key has the scopes read and manage at most";
        anyhow::bail!(UnusableArgument(problem.to_owned()));
    }
    if arguments.expires_in == Some(0) {
        anyhow::bail!(UnusableArgument("a key that works for 0 seconds is of no use".to_owned()));
    }
    let name = arguments.name.as_deref().map(Name::parse).transpose();
    let name = name.map_err(|error| UnusableArgument(format!("--name: {error}")))?;
    let new = NewKey {
        owner,
        mode: if arguments.test { KeyMode::Test } else { KeyMode::Live },
        scopes,
        name: name.map(|name| name.as_str().to_owned()),
        lifetime_seconds: arguments.expires_in,
    };
    let made = keys.create(&actor(), Authority::Operator, &new).await?;
    show_once(&made, arguments.json);
    Ok(())
}

async fn list(
    arguments: &ListArguments,
    keys: &ApiKeys,
    merchants: &Merchants,
) -> anyhow::Result<()> {
    let owner = owner(&arguments.owner, merchants).await?;
    let mut all = Vec::new();
    loop {
        let after = all.last().map(|key: &KeyRecord| key.api_key_id);
        let page = keys.page(owner, after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    if arguments.json {
        println!("{}", all.iter().map(KeyRecord::shown).collect::<Value>());
        return Ok(());
    }
    for key in &all {
        println!("{}", line(key));
    }
    if all.is_empty() {
        println!("no keys; `quittance key create` makes one");
    }
    Ok(())
}

fn line(key: &KeyRecord) -> String {
    let state = match (&key.revoked_at, &key.expires_at, key.is_valid) {
        (Some(at), _, _) => format!("revoked {at}"),
        (None, Some(at), true) => format!("works until {at}"),
        (None, Some(at), false) => format!("expired {at}"),
        (None, None, _) => "works".to_owned(),
    };
    let used = key.last_used_at.as_ref().map_or("never used".to_owned(), |at| format!("used {at}"));
    let name = key.name.as_deref().unwrap_or("-");
    format!(
        "{}  {}…  {}  {name}  created {}  {used}  {state}",
        key.api_key_id.as_uuid(),
        key.label,
        key.scopes,
        key.created_at,
    )
}

async fn owner(arguments: &OwnerArguments, merchants: &Merchants) -> anyhow::Result<KeyOwner> {
    let Some(name) = &arguments.merchant else { return Ok(KeyOwner::Operator) };
    let merchant = merchants.named(name).await.with_context(|| format!("look for {name:?}"))?;
    Ok(KeyOwner::Merchant(merchant.merchant_id))
}

/// The key alone on standard output, for scripts.
fn show_once((key, record): &(ApiKey, KeyRecord), as_json: bool) {
    if as_json {
        let mut shown = record.shown();
        shown["key"] = json!(key.reveal());
        println!("{shown}");
        return;
    }
    println!("{}", key.reveal());
    eprintln!("This is the only time the key is shown. Its id is {}.", record.api_key_id.as_uuid());
}
