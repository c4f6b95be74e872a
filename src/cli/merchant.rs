//! `quittance merchant`.

use anyhow::Context;
use clap::{
    ArgGroup, Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::{Value, json};

use crate::{
    config::Settings,
    domain::Depth,
    merchants::{self, Asset, Assets},
};

#[derive(Debug, Subcommand)]
pub(super) enum MerchantCommand {
    /// Create a merchant.
    Create(CreateArguments),
    /// Change a merchant. Replicas that run notice it within a second.
    Set(SetArguments),
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
    /// The merchant, by name or id.
    #[arg(value_name = "NAME_OR_ID")]
    name: String,
    /// How deep a payment must stand before success is told, unless a request says otherwise in
    /// `Quittance-Wait-For`. Payments that were claimed before keep the depth of their claim.
    #[arg(long, value_name = "DEPTH", value_parser = depth(), group = "change")]
    wait_for: Option<Depth>,
    /// What it may be paid in: `any`, or assets such as `eip155:8453/0x…`, separated by commas. Payments
    /// that were claimed before are settled all the same.
    #[arg(long, value_name = "ASSETS", group = "change")]
    assets: Option<Assets>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn depth() -> impl TypedValueParser<Value = Depth> {
    PossibleValuesParser::new(Depth::ALL.map(Depth::as_str))
        .map(|word| Depth::parse(&word).expect("only the words of depths are possible"))
}

pub(super) async fn run(command: MerchantCommand, settings: &Settings) -> anyhow::Result<()> {
    match command {
        MerchantCommand::Create(arguments) => create(&arguments, settings).await,
        MerchantCommand::Set(arguments) => set(&arguments, settings).await,
    }
}

async fn create(arguments: &CreateArguments, settings: &Settings) -> anyhow::Result<()> {
    let (name, wait_for) = (&arguments.name, arguments.wait_for);
    if !(1..=200).contains(&name.chars().count()) {
        anyhow::bail!("a merchant's name has 1 to 200 characters");
    }
    let pool = super::pool(settings).await?;
    let mut db = pool.begin().await?;
    let merchant_id = merchants::create_merchant(&mut db, name).await??;
    merchants::set_wait_for(&mut db, merchant_id, wait_for).await?;
    merchants::set_assets(&mut db, merchant_id, &arguments.assets).await?;
    db.commit().await?;
    if arguments.json {
        let answer = json!({
            "merchantId": merchant_id.as_uuid(),
            "name": name,
            "waitFor": wait_for.as_str(),
            "assets": listed(&arguments.assets),
        });
        println!("{answer}");
    } else {
        println!("merchant {merchant_id} ({name})");
        println!("next: quittance key create --merchant {merchant_id}");
    }
    Ok(())
}

async fn set(arguments: &SetArguments, settings: &Settings) -> anyhow::Result<()> {
    let unknown = || format!("there is no merchant {:?}", arguments.name);
    let pool = super::pool(settings).await?;
    let mut db = pool.begin().await?;
    let merchant_id = merchants::find_merchant(&mut db, &arguments.name).await?;
    let merchant_id = merchant_id.with_context(unknown)?;
    let mut answer = json!({ "merchantId": merchant_id.as_uuid() });
    let mut told = Vec::new();
    if let Some(wait_for) = arguments.wait_for {
        let is_set = merchants::set_wait_for(&mut db, merchant_id, wait_for).await?;
        anyhow::ensure!(is_set, unknown());
        answer["waitFor"] = json!(wait_for.as_str());
        told.push(format!("waits until payments are {}", wait_for.as_str()));
    }
    if let Some(assets) = &arguments.assets {
        merchants::set_assets(&mut db, merchant_id, assets).await?;
        answer["assets"] = listed(assets);
        told.push(format!("may be paid in: {assets}"));
    }
    db.commit().await?;
    if arguments.json {
        println!("{answer}");
    }
    for told in told.iter().filter(|_| !arguments.json) {
        println!("merchant {merchant_id} {told}");
    }
    Ok(())
}

/// `"any"`, or a list.
fn listed(assets: &Assets) -> Value {
    match assets.listed() {
        [] => json!(assets.to_string()),
        assets => assets.iter().map(Asset::to_string).collect(),
    }
}
