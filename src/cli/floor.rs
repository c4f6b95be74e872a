//! `quittance floor`.

use alloy::primitives::U256;
use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    config::Settings,
    limits::{self, Floor},
    merchants::Asset,
};

use super::{actor::actor, cap::number};

#[derive(Debug, Subcommand)]
pub(super) enum FloorCommand {
    /// Refuse payments that move less than their gas costs.
    Set(SetArguments),
    /// List the assets that have a floor.
    List(ListArguments),
    /// Take every payment in an asset again.
    Remove(RemoveArguments),
}

#[derive(Debug, Args)]
pub(super) struct SetArguments {
    /// The asset, such as `eip155:8453/0x…`.
    asset: Asset,
    /// What a whole coin of the chain costs, in base units of the asset.
    #[arg(long, value_name = "BASE_UNITS", value_parser = price)]
    coin_price: U256,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    /// The asset, such as `eip155:8453/0x…`.
    asset: Asset,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn price(text: &str) -> Result<U256, String> {
    let price = number(text)?;
    if price.is_zero() { Err("a coin costs something".to_owned()) } else { Ok(price) }
}

pub(super) async fn run(command: FloorCommand, settings: &Settings) -> anyhow::Result<()> {
    match command {
        FloorCommand::Set(arguments) => set(&arguments, settings).await,
        FloorCommand::List(arguments) => list(&arguments, settings).await,
        FloorCommand::Remove(arguments) => remove(&arguments, settings).await,
    }
}

async fn set(arguments: &SetArguments, settings: &Settings) -> anyhow::Result<()> {
    let Asset { chain_id, address } = arguments.asset;
    let floor = Floor { chain_id, asset: address, base_units_per_coin: arguments.coin_price };
    let pool = super::pool(settings).await?;
    let mut db = pool.begin().await?;
    limits::set_floor(&mut db, &actor(), &floor).await?;
    db.commit().await?;
    tell(&floor, arguments.json);
    Ok(())
}

async fn list(arguments: &ListArguments, settings: &Settings) -> anyhow::Result<()> {
    let pool = super::pool(settings).await?;
    let mut conn = pool.acquire().await?;
    let floors = limits::floors(&mut conn).await?;
    if arguments.json {
        println!("{}", json!({ "floors": floors.iter().map(Floor::told).collect::<Vec<_>>() }));
        return Ok(());
    }
    floors.iter().for_each(|floor| tell(floor, false));
    Ok(())
}

async fn remove(arguments: &RemoveArguments, settings: &Settings) -> anyhow::Result<()> {
    let asset = arguments.asset;
    let pool = super::pool(settings).await?;
    let mut db = pool.begin().await?;
    let removed = limits::remove_floor(&mut db, &actor(), asset.chain_id, asset.address).await?;
    let floor = removed.with_context(|| format!("there is no floor for {asset}"))?;
    db.commit().await?;
    match arguments.json {
        true => println!("{}", floor.told()),
        false => println!("payments in {asset} have no floor"),
    }
    Ok(())
}

fn tell(floor: &Floor, as_json: bool) {
    match as_json {
        true => println!("{}", floor.told()),
        false => println!(
            "{}/{}: a coin costs {} base units",
            floor.chain_id, floor.asset, floor.base_units_per_coin
        ),
    }
}
