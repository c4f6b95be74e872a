//! `quittance merchant`.

use anyhow::Context as _;
use clap::{
    ArgGroup, Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::Value;

use crate::{
    app,
    config::Settings,
    domain::{Depth, Rate, RateClass, RateError},
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
    /// How often a merchant may ask: show it, or change it. Replicas that run notice it within a second.
    Limits(LimitsArguments),
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

#[derive(Debug, Args)]
pub(super) struct LimitsArguments {
    #[command(flatten)]
    which: Which,
    /// Verifications: so many a second in the long run, and so many at once, as `100/200`; or `default`.
    #[arg(long, value_name = "RATE", value_parser = own_rate)]
    verify: Option<OwnRate>,
    /// Settlements.
    #[arg(long, value_name = "RATE", value_parser = own_rate)]
    settle: Option<OwnRate>,
    /// Everything else that needs a key.
    #[arg(long, value_name = "RATE", value_parser = own_rate)]
    read: Option<OwnRate>,
}

/// A rate of its own, or none: that of the settings.
#[derive(Debug, Clone, Copy)]
struct OwnRate(Option<Rate>);

fn own_rate(text: &str) -> Result<OwnRate, RateError> {
    match text {
        "default" => Ok(OwnRate(None)),
        text => text.parse().map(|rate| OwnRate(Some(rate))),
    }
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
        MerchantCommand::Limits(arguments) => limits(&arguments, &merchants, settings).await,
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

async fn limits(
    arguments: &LimitsArguments,
    merchants: &Merchants,
    settings: &Settings,
) -> anyhow::Result<()> {
    let merchant_id = found(&arguments.which, merchants).await?.merchant_id;
    let LimitsArguments { verify, settle, read, .. } = arguments;
    let asked = RateClass::ALL.into_iter().zip([verify, settle, read]);
    let wishes: Vec<_> = asked.filter_map(|(class, rate)| Some((class, (*rate)?.0))).collect();
    let own = merchants.set_rates(&actor(), merchant_id, &wishes).await?;
    let limits = app::rate_limits(&settings.limits)?;
    if arguments.which.json {
        println!("{}", limits.shown(merchant_id, &own));
        return Ok(());
    }
    for class in RateClass::ALL {
        let rate = limits.rate(&own, class);
        let (per_second, burst) = (rate.per_second(), rate.burst());
        let whose = if own.of(class).is_some() { "its own" } else { "the default" };
        println!("{:<6}  {per_second} a second, {burst} at once ({whose})", class.as_str());
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
