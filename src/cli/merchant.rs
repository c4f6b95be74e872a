//! `quittance merchant`.

use anyhow::Context;
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::json;

use crate::{config::Settings, domain::Depth, merchants};

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
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SetArguments {
    /// The merchant, by name or id.
    #[arg(value_name = "NAME_OR_ID")]
    name: String,
    /// How deep a payment must stand before success is told, unless a request says otherwise in
    /// `Quittance-Wait-For`. Payments that were claimed before keep the depth of their claim.
    #[arg(long, value_name = "DEPTH", value_parser = depth())]
    wait_for: Depth,
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
    db.commit().await?;
    if arguments.json {
        let wait_for = wait_for.as_str();
        let merchant_id = merchant_id.as_uuid();
        println!("{}", json!({ "merchantId": merchant_id, "name": name, "waitFor": wait_for }));
    } else {
        println!("merchant {merchant_id} ({name})");
        println!("next: quittance key create --merchant {merchant_id}");
    }
    Ok(())
}

async fn set(arguments: &SetArguments, settings: &Settings) -> anyhow::Result<()> {
    let (name, wait_for) = (&arguments.name, arguments.wait_for);
    let unknown = || format!("there is no merchant {name:?}");
    let pool = super::pool(settings).await?;
    let mut conn = pool.acquire().await?;
    let merchant_id = merchants::find_merchant(&mut conn, name).await?.with_context(unknown)?;
    let is_set = merchants::set_wait_for(&mut conn, merchant_id, wait_for).await?;
    anyhow::ensure!(is_set, unknown());
    let wait_for = wait_for.as_str();
    if arguments.json {
        println!("{}", json!({ "merchantId": merchant_id.as_uuid(), "waitFor": wait_for }));
    } else {
        println!("merchant {merchant_id} waits until payments are {wait_for}");
    }
    Ok(())
}
