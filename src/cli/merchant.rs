//! `quittance merchant`.

use anyhow::Context as _;
use clap::{
    ArgGroup, Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::Value;

use crate::{
    config::Settings,
    domain::Depth,
    merchants::{Assets, Merchant, MerchantStatus, Merchants, Name, NewMerchant, Why, Wishes},
};

use super::{UnusableArgument, actor::actor};

/// How many merchants are read at a time.
const PAGE: u32 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum MerchantCommand {
    /// Create a merchant.
    Create(CreateArguments),
    /// Change a merchant. Replicas that run notice it within a second.
    Set(SetArguments),
    /// Show every merchant.
    List(ListArguments),
    /// Show one merchant.
    Show(Which),
    /// Take no payments of a merchant for now. It may read; what was claimed before is settled.
    Suspend(StopArguments),
    /// Take payments of a suspended merchant again.
    Resume(StopArguments),
    /// Take no payments of a merchant any more. This is final.
    Close(StopArguments),
}

#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    /// A name of 1 to 200 characters that no other merchant has.
    name: String,
    /// How deep a payment must stand before success is told, unless a request says otherwise in
    /// `Quittance-Wait-For`.
    #[arg(long, value_name = "DEPTH", value_parser = depth(), default_value = "included")]
    wait_for: Depth,
    /// What it may be paid in: `any`, or assets such as `eip155:8453/0x…`, separated by commas.
    #[arg(long, value_name = "ASSETS", default_value_t = Assets::ANY)]
    assets: Assets,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(super) struct SetArguments {
    #[command(flatten)]
    which: Which,
    /// Another name.
    #[arg(long, value_name = "NEW_NAME", group = "change")]
    rename: Option<String>,
    /// How deep a payment must stand before success is told, unless a request says otherwise in
    /// `Quittance-Wait-For`. Payments that were claimed before keep the depth of their claim.
    #[arg(long, value_name = "DEPTH", value_parser = depth(), group = "change")]
    wait_for: Option<Depth>,
    /// What it may be paid in: `any`, or assets such as `eip155:8453/0x…`, separated by commas. Payments
    /// that were claimed before are settled all the same.
    #[arg(long, value_name = "ASSETS", group = "change")]
    assets: Option<Assets>,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StopArguments {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever reads it later. The merchant can read it too.
    #[arg(long, value_name = "REASON")]
    reason: String,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The merchant, by name or id.
    #[arg(value_name = "NAME_OR_ID")]
    merchant: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn depth() -> impl TypedValueParser<Value = Depth> {
    PossibleValuesParser::new(Depth::ALL.map(Depth::as_str))
        .map(|word| Depth::parse(&word).expect("only the words of depths are possible"))
}

pub(super) async fn run(command: MerchantCommand, settings: &Settings) -> anyhow::Result<()> {
    let merchants = Merchants::new(super::pool(settings).await?);
    match command {
        MerchantCommand::Create(arguments) => create(&arguments, &merchants).await,
        MerchantCommand::Set(arguments) => set(&arguments, &merchants).await,
        MerchantCommand::List(arguments) => list(&arguments, &merchants).await,
        MerchantCommand::Show(which) => {
            show(&found(&which, &merchants).await?, which.json);
            Ok(())
        }
        MerchantCommand::Suspend(arguments) => {
            move_to(&arguments, &merchants, MerchantStatus::Suspended).await
        }
        MerchantCommand::Resume(arguments) => {
            move_to(&arguments, &merchants, MerchantStatus::Active).await
        }
        MerchantCommand::Close(arguments) => {
            move_to(&arguments, &merchants, MerchantStatus::Closed).await
        }
    }
}

async fn create(arguments: &CreateArguments, merchants: &Merchants) -> anyhow::Result<()> {
    let name = Name::parse(&arguments.name).context("a merchant's name")?;
    let assets = arguments.assets.clone();
    let new = NewMerchant { name, wait_for: arguments.wait_for, assets };
    let created = merchants.create(&actor(), &new).await?;
    if arguments.json {
        println!("{}", created.shown());
    } else {
        println!("merchant {} ({})", created.merchant_id, created.name);
        println!("next: quittance key create --merchant {}", created.merchant_id);
    }
    Ok(())
}

async fn set(arguments: &SetArguments, merchants: &Merchants) -> anyhow::Result<()> {
    let name = arguments.rename.as_deref().map(Name::parse).transpose().context("--rename")?;
    let merchant_id = found(&arguments.which, merchants).await?.merchant_id;
    let (wait_for, assets) = (arguments.wait_for, arguments.assets.clone());
    let changed =
        merchants.change(&actor(), merchant_id, &Wishes { name, wait_for, assets }).await?;
    if arguments.which.json {
        println!("{}", changed.shown());
        return Ok(());
    }
    if arguments.rename.is_some() {
        println!("merchant {merchant_id} is called {}", changed.name);
    }
    if arguments.wait_for.is_some() {
        println!("merchant {merchant_id} waits until payments are {}", changed.wait_for.as_str());
    }
    if arguments.assets.is_some() {
        println!("merchant {merchant_id} may be paid in: {}", changed.assets);
    }
    Ok(())
}

async fn list(arguments: &ListArguments, merchants: &Merchants) -> anyhow::Result<()> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map(|merchant: &Merchant| merchant.merchant_id);
        let page = merchants.page(after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    if arguments.json {
        println!("{}", all.iter().map(Merchant::shown).collect::<Value>());
        return Ok(());
    }
    for merchant in &all {
        let Merchant { merchant_id, name, status, created_at, .. } = merchant;
        println!("{merchant_id}  {}  created {created_at}  {name}", status.as_str());
    }
    if all.is_empty() {
        println!("no merchants; `quittance merchant create` makes one");
    }
    Ok(())
}

async fn move_to(
    arguments: &StopArguments,
    merchants: &Merchants,
    status: MerchantStatus,
) -> anyhow::Result<()> {
    let why = Why::parse(&arguments.reason);
    let why = why.map_err(|error| UnusableArgument(format!("--reason: {error}")))?;
    let merchant_id = found(&arguments.which, merchants).await?.merchant_id;
    let moved = merchants.move_to(&actor(), merchant_id, status, &why).await?;
    if arguments.which.json {
        println!("{}", moved.shown());
    } else {
        println!("merchant {merchant_id} ({}) is {}", moved.name, moved.status.as_str());
    }
    Ok(())
}

async fn found(which: &Which, merchants: &Merchants) -> anyhow::Result<Merchant> {
    let name = &which.merchant;
    merchants.named(name).await.with_context(|| format!("look for {name:?}"))
}

fn show(merchant: &Merchant, as_json: bool) {
    if as_json {
        println!("{}", merchant.shown());
        return;
    }
    let reason = merchant.status_reason.as_ref().map(|text| format!(" ({text})"));
    println!("merchant   {}", merchant.merchant_id);
    println!("name       {}", merchant.name);
    println!("status     {}{}", merchant.status.as_str(), reason.unwrap_or_default());
    println!("waits for  {}", merchant.wait_for.as_str());
    println!("assets     {}", merchant.assets);
    println!("created    {}", merchant.created_at);
    println!("changed    {}", merchant.updated_at);
}
