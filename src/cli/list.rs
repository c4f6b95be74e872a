//! `quittance list`.

use std::io::Read as _;

use alloy::primitives::Address;
use anyhow::Context as _;
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    config::Settings,
    domain::ChainId,
    facilitator::{Listing, N_CHANGED_MAX},
    lists::{Entry, Filter, Kind, NewEntry, Owner, RefusalFilter, RefusalRecord, Verb},
    merchants,
};

use super::actor::actor;

/// How many rows are read at a time.
const PAGE: u32 = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum ListCommand {
    /// Write addresses into a list. Claims obey it at once, verifications within a second.
    Add(ChangeArguments),
    /// Take addresses out of a list.
    Remove(ChangeArguments),
    /// Print what the lists say.
    Show(ShowArguments),
    /// Print which payments lists denied, the newest first.
    Refusals(RefusalsArguments),
}

#[derive(Debug, Args)]
pub(super) struct ChangeArguments {
    /// Which addresses: `0x…`, or `-` to read one a line, with comments after `#`.
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// What part they have in a payment.
    #[arg(long, value_name = "KIND", value_parser = kind())]
    kind: Kind,
    /// `deny` denies them; `allow` denies everybody else.
    #[arg(long, value_name = "VERB", value_parser = verb())]
    verb: Verb,
    /// On this chain only, such as `eip155:8453`.
    #[arg(long, value_name = "CAIP2", value_parser = chain_id)]
    chain: Option<ChainId>,
    /// In the lists of this merchant, by name or id; otherwise in those of the whole service.
    #[arg(long, value_name = "NAME_OR_ID")]
    merchant: Option<String>,
    /// Why, for whoever reads the list.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The lists of this merchant, by name or id; otherwise those of the whole service.
    #[arg(long, value_name = "NAME_OR_ID")]
    merchant: Option<String>,
    /// Of this kind only.
    #[arg(long, value_name = "KIND", value_parser = kind())]
    kind: Option<Kind>,
    /// With this verb only.
    #[arg(long, value_name = "VERB", value_parser = verb())]
    verb: Option<Verb>,
    /// About this address only.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Address>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RefusalsArguments {
    /// Of this merchant only, by name or id.
    #[arg(long, value_name = "NAME_OR_ID")]
    merchant: Option<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Only denials before the one with this number.
    #[arg(long, value_name = "NUMBER")]
    after: Option<i64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::as_str))
        .map(|word| Kind::parse(&word).expect("only the words of kinds are possible"))
}

fn verb() -> impl TypedValueParser<Value = Verb> {
    PossibleValuesParser::new(Verb::ALL.map(Verb::as_str))
        .map(|word| Verb::parse(&word).expect("only the words of verbs are possible"))
}

fn chain_id(text: &str) -> Result<ChainId, String> {
    text.parse().map_err(|_| "not an EVM chain in CAIP-2, such as eip155:8453".to_owned())
}

pub(super) async fn run(command: ListCommand, settings: &Settings) -> anyhow::Result<()> {
    let pool = super::pool(settings).await?;
    match command {
        ListCommand::Add(arguments) => add(&pool, &arguments).await,
        ListCommand::Remove(arguments) => remove(&pool, &arguments).await,
        ListCommand::Show(arguments) => show(&pool, &arguments).await,
        ListCommand::Refusals(arguments) => refusals(&pool, &arguments).await,
    }
}

async fn add(pool: &PgPool, arguments: &ChangeArguments) -> anyhow::Result<()> {
    let (owner, entries) = change(pool, arguments).await?;
    let (mut n_added, mut version) = (0, 0);
    for part in entries.chunks(N_CHANGED_MAX) {
        let changed = Listing::new(pool.clone()).add(&actor(), owner, part).await??;
        n_added += changed.n_entries;
        version = changed.version;
    }
    tell(arguments, "added", n_added, version);
    Ok(())
}

async fn remove(pool: &PgPool, arguments: &ChangeArguments) -> anyhow::Result<()> {
    let (owner, entries) = change(pool, arguments).await?;
    let (mut n_removed, mut version) = (0, 0);
    for part in entries.chunks(N_CHANGED_MAX) {
        let changed = Listing::new(pool.clone()).remove(&actor(), owner, part).await?;
        n_removed += changed.n_entries;
        version = changed.version;
    }
    tell(arguments, "removed", n_removed, version);
    Ok(())
}

fn tell(arguments: &ChangeArguments, what: &str, n_entries: u64, version: u64) {
    if arguments.json {
        println!("{}", json!({ what: n_entries, "version": version }));
    } else {
        println!("{what} {n_entries}; the lists are of version {version}");
    }
}

/// Whose lists are changed, and by what.
async fn change(
    pool: &PgPool,
    arguments: &ChangeArguments,
) -> anyhow::Result<(Owner, Vec<NewEntry>)> {
    let mut addresses = Vec::new();
    for text in &arguments.addresses {
        match text.as_str() {
            "-" => addresses.extend(read_addresses()?),
            text => addresses.push(parse_address(text)?),
        }
    }
    let entries = addresses.into_iter().map(|address| {
        let ChangeArguments { kind, verb, chain, note, .. } = arguments;
        Ok(NewEntry::new(*kind, *verb, *chain, address, note)?)
    });
    let entries: Vec<NewEntry> = entries.collect::<anyhow::Result<_>>()?;
    Ok((owner(pool, arguments.merchant.as_deref()).await?, entries))
}

/// One address a line from standard input.
fn read_addresses() -> anyhow::Result<Vec<Address>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("read addresses")?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(parse_address).collect()
}

fn parse_address(text: &str) -> anyhow::Result<Address> {
    let digits = text.strip_prefix("0x").and_then(|digits| digits.parse().ok());
    digits.with_context(|| format!("{text:?} is not an address, 0x and 40 hex digits"))
}

async fn owner(pool: &PgPool, merchant: Option<&str>) -> anyhow::Result<Owner> {
    let Some(name) = merchant else { return Ok(Owner::Service) };
    let mut conn = pool.acquire().await?;
    let found = merchants::find_merchant(&mut conn, name).await?;
    let merchant_id = found.with_context(|| format!("there is no merchant {name:?}"))?;
    Ok(Owner::Merchant(merchant_id))
}

async fn show(pool: &PgPool, arguments: &ShowArguments) -> anyhow::Result<()> {
    let listing = Listing::new(pool.clone());
    let mut filter = Filter {
        owner: owner(pool, arguments.merchant.as_deref()).await?,
        kind: arguments.kind,
        verb: arguments.verb,
        address: arguments.address,
        after: 0,
        limit: PAGE,
    };
    loop {
        let page = listing.entries(&filter).await?;
        for entry in &page {
            print_entry(entry, arguments.json);
        }
        let Some(last) = page.last() else { return Ok(()) };
        filter.after = last.entry_id;
    }
}

/// A line each, so that a long list can be read while it is printed.
fn print_entry(entry: &Entry, as_json: bool) {
    let (line, owner) = (&entry.line, entry.owner);
    if as_json {
        println!("{}", entry.shown());
        return;
    }
    let list = format!("{}/{}/{}", owner.as_str(), line.kind(), line.verb().as_str());
    let chain = line.chain_id().map_or_else(|| "any".to_owned(), |chain_id| chain_id.to_string());
    println!("{list:22}  {chain:15}  {}  {}  {}", line.address(), entry.created_at, line.note());
}

async fn refusals(pool: &PgPool, arguments: &RefusalsArguments) -> anyhow::Result<()> {
    let merchant_id = owner(pool, arguments.merchant.as_deref()).await?.merchant_id();
    let filter = RefusalFilter { merchant_id, after: arguments.after, limit: arguments.limit };
    for record in Listing::new(pool.clone()).refusals(&filter).await? {
        print_refusal(&record, arguments.json);
    }
    Ok(())
}

fn print_refusal(record: &RefusalRecord, as_json: bool) {
    let (kind, address) = &record.denied;
    if as_json {
        println!("{}", record.shown());
        return;
    }
    let RefusalRecord { last_at, stage, list, version, payer, payee, amount, n, .. } = record;
    println!(
        "{last_at}  {stage:6}  {list} {version}  denies {kind} {address}  {payer} -> {payee}  \
         {amount} of {}/{}  {n} times",
        record.chain_id, record.asset
    );
}
