//! `quittance cap`.

use alloy::primitives::{Address, U256};
use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    config::Settings,
    domain::{Amount, ApiKeyId, ChainId, MerchantId},
    limits::{self, Cap, CapId, CapPeriod, CapTerms, Measure, Setter, Subject, Viewer},
    merchants::{self, Asset},
};

use super::{UnusableArgument, actor::actor};

/// How many caps are read at a time.
const N_AT_A_TIME: i64 = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum CapCommand {
    /// Set a cap, or change the limit of the one that is about the same. It counts what was claimed since
    /// its window began.
    Set(SetArguments),
    /// List caps.
    List(ListArguments),
    /// Show a cap, and those who have used most of it.
    Show(OneArguments),
    /// Remove a cap.
    Remove(OneArguments),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("measure").required(true))]
pub(super) struct SetArguments {
    /// Whose payments. Who is not named by a flag below is each on its own.
    #[arg(long = "for", value_name = "WHOM")]
    subject: Whom,
    /// That merchant, by name or id.
    #[arg(long, value_name = "NAME_OR_ID")]
    merchant: Option<String>,
    /// That key, by id.
    #[arg(long, value_name = "KEY_ID")]
    key: Option<Uuid>,
    /// That payer.
    #[arg(long, value_name = "ADDRESS")]
    payer: Option<Address>,
    /// At most so many base units of `--asset`.
    #[arg(long, group = "measure", value_name = "BASE_UNITS", value_parser = number, requires = "asset")]
    amount: Option<U256>,
    /// At most so many payments, on `--chain` or in `--asset` if given.
    #[arg(long, group = "measure", value_name = "N", value_parser = number)]
    count: Option<U256>,
    /// At most so much gas a day on `--chain`, in wei of its coin.
    #[arg(long, group = "measure", value_name = "WEI", value_parser = number, requires = "chain")]
    gas_wei: Option<U256>,
    /// The asset, such as `eip155:8453/0x…`.
    #[arg(long, conflicts_with = "gas_wei")]
    asset: Option<Asset>,
    /// The chain, such as `eip155:8453`.
    #[arg(long, value_name = "CHAIN_ID", value_parser = chain_id, conflicts_with = "asset")]
    chain: Option<ChainId>,
    /// In which time. Hours and days are those of UTC.
    #[arg(long, value_name = "PERIOD")]
    per: Per,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Those that this merchant sees, by name or id.
    #[arg(long, value_name = "NAME_OR_ID")]
    merchant: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OneArguments {
    /// The cap's id.
    cap_id: Uuid,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Whom {
    /// All that a merchant is paid.
    Merchant,
    /// All that is claimed with a key.
    Key,
    /// All that a payer pays, whomever.
    Payer,
    /// All that a payer pays a merchant.
    PayerAtMerchant,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Per {
    /// Each by itself.
    Payment,
    /// From full hour to full hour.
    Hour,
    /// From midnight to midnight.
    Day,
}

impl From<Per> for CapPeriod {
    fn from(per: Per) -> Self {
        match per {
            Per::Payment => Self::Payment,
            Per::Hour => Self::Hour,
            Per::Day => Self::Day,
        }
    }
}

/// A number without sign, point or separator, as amounts are written on the wire.
pub(super) fn number(text: &str) -> Result<U256, String> {
    let parsed = Amount::parse(text).map(Amount::base_units);
    parsed.map_err(|_| "expected decimal digits of a number below 2^256".to_owned())
}

fn chain_id(text: &str) -> Result<ChainId, String> {
    text.parse().map_err(|_| "expected a chain such as eip155:8453".to_owned())
}

pub(super) async fn run(command: CapCommand, settings: &Settings) -> anyhow::Result<()> {
    match command {
        CapCommand::Set(arguments) => set(&arguments, settings).await,
        CapCommand::List(arguments) => list(&arguments, settings).await,
        CapCommand::Show(arguments) => show(&arguments, settings).await,
        CapCommand::Remove(arguments) => remove(&arguments, settings).await,
    }
}

async fn set(arguments: &SetArguments, settings: &Settings) -> anyhow::Result<()> {
    let (measure, most) = arguments.measure()?;
    // Whatever makes no sense is told before the database is asked.
    CapTerms::new(arguments.subject(None, None)?, measure, arguments.per.into())
        .map_err(|error| UnusableArgument(error.to_string()))?;
    let pool = super::pool(settings).await?;
    let mut db = pool.begin().await?;
    let merchant_id = match &arguments.merchant {
        Some(name) => Some(merchant(&mut db, name).await?),
        None => None,
    };
    let key = match arguments.key.map(ApiKeyId::from_uuid) {
        Some(key) => {
            let of = limits::key_merchant(&mut db, key).await?;
            Some((of.context("there is no such key of a merchant")?, key))
        }
        None => None,
    };
    let subject = arguments.subject(merchant_id, key)?;
    let terms = CapTerms::new(subject, measure, arguments.per.into())?;
    let cap = limits::set_cap(&mut db, &actor(), Setter::Operator, terms, most).await?;
    db.commit().await?;
    if arguments.json {
        println!("{}", cap.told());
    } else {
        println!("{} {cap}", cap.cap_id);
    }
    Ok(())
}

impl SetArguments {
    fn measure(&self) -> Result<(Measure, U256), UnusableArgument> {
        let asset = self.asset.map(|asset| (asset.chain_id, asset.address));
        let missing =
            || UnusableArgument("--amount needs --asset, and --gas-wei --chain".to_owned());
        if let Some(most) = self.amount {
            let (chain_id, asset) = asset.ok_or_else(missing)?;
            return Ok((Measure::Amount { chain_id, asset }, most));
        }
        if let Some(most) = self.gas_wei {
            return Ok((Measure::Gas { chain_id: self.chain.ok_or_else(missing)? }, most));
        }
        let (chain_id, asset) = asset.unzip();
        let most = self.count.ok_or_else(missing)?;
        Ok((Measure::Count { chain_id: chain_id.or(self.chain), asset }, most))
    }

    fn subject(
        &self,
        merchant_id: Option<MerchantId>,
        key: Option<(MerchantId, ApiKeyId)>,
    ) -> Result<Subject, UnusableArgument> {
        let (whom, named): (&str, [bool; 3]) = match self.subject {
            Whom::Merchant => ("merchant", [true, false, false]),
            Whom::Key => ("key", [true, true, false]),
            Whom::Payer => ("payer", [false, false, true]),
            Whom::PayerAtMerchant => ("payer-at-merchant", [true, false, true]),
        };
        let given = [self.merchant.is_some(), self.key.is_some(), self.payer.is_some()];
        let flags = ["--merchant", "--key", "--payer"];
        for ((flag, is_given), may_be) in flags.into_iter().zip(given).zip(named) {
            if is_given && !may_be {
                return Err(UnusableArgument(format!("--for {whom} takes no {flag}")));
            }
        }
        Ok(match self.subject {
            Whom::Merchant => Subject::Merchant(merchant_id),
            Whom::Key => {
                Subject::Key(merchant_id.or(key.map(|(of, _)| of)), key.map(|(_, key)| key))
            }
            Whom::Payer => Subject::Payer(self.payer),
            Whom::PayerAtMerchant => Subject::PayerAtMerchant(self.payer, merchant_id),
        })
    }
}

async fn list(arguments: &ListArguments, settings: &Settings) -> anyhow::Result<()> {
    let pool = super::pool(settings).await?;
    let mut conn = pool.acquire().await?;
    let viewer = match &arguments.merchant {
        Some(name) => Viewer::Merchant(merchant(&mut conn, name).await?),
        None => Viewer::Operator,
    };
    let (mut caps, mut after): (Vec<Cap>, Option<CapId>) = (Vec::new(), None);
    loop {
        let found = limits::caps(&mut conn, viewer, after, N_AT_A_TIME).await?;
        let Some(last) = found.last() else { break };
        after = Some(last.cap_id);
        caps.extend(found);
    }
    if arguments.json {
        println!("{}", json!({ "caps": caps.iter().map(Cap::told).collect::<Vec<_>>() }));
        return Ok(());
    }
    for cap in caps {
        println!("{} {cap}{}", cap.cap_id, named(&cap));
    }
    Ok(())
}

/// Whom a cap names, for people.
fn named(cap: &Cap) -> String {
    let subject = cap.terms.subject();
    let merchant = subject.merchant_id().map(|id| format!("merchant {id}"));
    let key = subject.api_key_id().map(|id| format!("key {}", id.as_uuid()));
    let payer = subject.payer().map(|payer| format!("payer {payer}"));
    let names: Vec<String> = [merchant, key, payer].into_iter().flatten().collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

async fn show(arguments: &OneArguments, settings: &Settings) -> anyhow::Result<()> {
    let pool = super::pool(settings).await?;
    let mut conn = pool.acquire().await?;
    let cap_id = CapId::from_uuid(arguments.cap_id);
    let cap = limits::cap(&mut conn, Viewer::Operator, cap_id).await?;
    let cap = cap.with_context(|| format!("there is no cap {cap_id}"))?;
    let usage = limits::usage(&mut conn, Viewer::Operator, cap_id).await?;
    if arguments.json {
        let mut told = cap.told();
        told["usage"] = usage.iter().map(limits::Usage::told).collect();
        println!("{told}");
        return Ok(());
    }
    println!("{} {cap}{}", cap.cap_id, named(&cap));
    for used in usage {
        println!("  {}: {} used; it begins anew at {}", used.subject, used.used, used.begins_anew);
    }
    Ok(())
}

async fn remove(arguments: &OneArguments, settings: &Settings) -> anyhow::Result<()> {
    let pool = super::pool(settings).await?;
    let mut db = pool.begin().await?;
    let cap_id = CapId::from_uuid(arguments.cap_id);
    let removed = limits::remove_cap(&mut db, &actor(), Setter::Operator, cap_id).await?;
    let cap = removed.with_context(|| format!("there is no cap {cap_id}"))?;
    db.commit().await?;
    if arguments.json {
        println!("{}", cap.told());
    } else {
        println!("removed {} {cap}", cap.cap_id);
    }
    Ok(())
}

async fn merchant(conn: &mut PgConnection, name: &str) -> anyhow::Result<MerchantId> {
    let found = merchants::find_merchant(conn, name).await?;
    found.with_context(|| format!("there is no merchant {name:?}"))
}
