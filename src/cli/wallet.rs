//! `quittance wallet`: the accounts that pay gas. What it changes is in the database, where running
//! replicas look every second. It reads keys to see whether they are there, and shows none.

use std::{fmt, str::FromStr};

use alloy::primitives::{Address, U256, utils::format_ether};
use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    app,
    chain::Chain,
    config::{ChainSettings, Settings},
    engine::{
        Keys, N_MNEMONIC_ACCOUNTS, WalletRow, WalletStatus, register_wallet, reinstate_wallet,
        set_wallet_status, transactions_left, wallets,
    },
};

use super::UnusableArgument;

#[derive(Debug, Subcommand)]
pub(super) enum WalletCommand {
    /// Show the wallets: status, gas money, what is open, and who works with each.
    List(ListArguments),
    /// Register a wallet whose key is in the settings, or take a retired one back.
    ///
    /// The key comes from `wallet_private_key`, `wallet_mnemonic` or `wallet_keystore_dir` of the chain
    /// in the settings; the database learns the address only. Every replica that is to sign with it
    /// needs the key in its own settings. The wallet signs within a second, as soon as it holds gas
    /// money.
    Add(AddArguments),
    /// Let a wallet finish what is open, and then retire it. Others do its work.
    ///
    /// Keep its key in the settings until its last transactions are final: a reorganization can open
    /// them again.
    Drain(DrainArguments),
    /// Stop a wallet from signing anything new. What is open is followed.
    Pause(PauseArguments),
    /// Let a paused, draining or quarantined wallet sign again.
    Resume(ResumeArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Only of this chain, by its name in the settings or its id.
    #[arg(long, value_name = "NAME")]
    chain: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("account").required(true)))]
pub(super) struct AddArguments {
    /// The chain it pays gas on, by its name in the settings or its id.
    #[arg(long, value_name = "NAME")]
    chain: String,
    /// The account, 0x and 40 hex digits.
    #[arg(long, group = "account", value_name = "ADDRESS")]
    address: Option<Address>,
    /// The account m/44'/60'/0'/0/N of the settings' mnemonic, from 0 to 63.
    #[arg(
        long, group = "account", value_name = "N",
        value_parser = clap::value_parser!(u32).range(..i64::from(N_MNEMONIC_ACCOUNTS)),
    )]
    mnemonic_index: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The wallet, by its address or by its id in `quittance wallet list`.
    #[arg(value_name = "WALLET")]
    wallet: WalletName,
    /// Its chain, where an address is a wallet on several.
    #[arg(long, value_name = "NAME")]
    chain: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    #[command(flatten)]
    which: Which,
    /// For a quarantined wallet: I know who used its key.
    #[arg(long)]
    i_have_looked: bool,
}

#[derive(Debug, Args)]
pub(super) struct PauseArguments {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever looks at `wallet list` or `/readyz`.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    which: Which,
    /// For a quarantined wallet: I know who used its key, and it will not happen again. The account
    /// nonces that they used are skipped.
    #[arg(long)]
    i_have_looked: bool,
}

/// How a person names a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WalletName {
    Id(i32),
    Address(Address),
}

impl FromStr for WalletName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = "a wallet is named by its address, or by its id in `quittance wallet list`";
        match text.parse() {
            Ok(wallet_id) => Ok(Self::Id(wallet_id)),
            Err(_) => text.parse().map(Self::Address).map_err(|_| problem),
        }
    }
}

impl fmt::Display for WalletName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(wallet_id) => write!(f, "{wallet_id}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

pub(super) async fn run(command: WalletCommand, settings: &Settings) -> anyhow::Result<()> {
    app::install_tls_provider();
    match command {
        WalletCommand::List(arguments) => list(&arguments, settings).await,
        WalletCommand::Add(arguments) => add(&arguments, settings).await,
        WalletCommand::Drain(arguments) => drain(&arguments, settings).await,
        WalletCommand::Pause(arguments) => pause(&arguments, settings).await,
        WalletCommand::Resume(arguments) => resume(&arguments, settings).await,
    }
}

async fn list(arguments: &ListArguments, settings: &Settings) -> anyhow::Result<()> {
    let only = arguments.chain.as_deref().map(|name| chain_named(settings, name)).transpose()?;
    let pool = super::pool(settings).await?;
    let rows = wallets(&mut *pool.acquire().await?, only.map(|(_, chain)| chain.id)).await?;
    let is_used = |chain: &ChainSettings| rows.iter().any(|row| row.chain_id == chain.id);
    let doors: Vec<Door<'_>> = settings
        .chains
        .iter()
        .filter(|(_, chain)| is_used(chain))
        .map(|(name, settings)| Door { name, settings, keys: app::keys(settings) })
        .collect();
    let mut seen = Vec::with_capacity(rows.len());
    for row in &rows {
        seen.push(match doors.iter().find(|door| door.settings.id == row.chain_id) {
            Some(door) => Seen::look(door, row).await,
            None => Seen::of_unserved_chain(row),
        });
    }
    if arguments.json {
        let shown: Vec<Value> = rows.iter().zip(&seen).map(|(row, seen)| seen.json(row)).collect();
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else if rows.is_empty() {
        println!("There is no wallet; `quittance wallet add` registers one.");
    } else {
        rows.iter().zip(&seen).for_each(|(row, seen)| seen.print(row));
    }
    Ok(())
}

/// A chain of the settings. Its keys are opened once, because that takes a while.
struct Door<'a> {
    name: &'a str,
    settings: &'a ChainSettings,
    keys: anyhow::Result<Keys>,
}

/// What is not in the database about a wallet.
struct Seen {
    chain_name: Option<String>,
    /// The gas money, or why it could not be read.
    gas: Result<GasMoney, String>,
    /// Whether these settings have the key, or what is wrong with the source that should.
    key: Result<bool, String>,
}

struct GasMoney {
    balance_wei: U256,
    /// `None` while the chain asks more than is offered.
    n_transactions_left: Option<U256>,
}

impl Seen {
    async fn look(door: &Door<'_>, row: &WalletRow) -> Self {
        let gas =
            async { gas_money(&app::chain(door.settings)?, door.settings, row.address).await };
        let key = match &door.keys {
            Ok(keys) => has_key(keys, row.address).map_err(|error| format!("{error:#}")),
            Err(error) => Err(format!("{error:#}")),
        };
        let gas = gas.await.map_err(|error| format!("{error:#}"));
        Self { chain_name: Some(door.name.to_owned()), gas, key }
    }

    fn of_unserved_chain(row: &WalletRow) -> Self {
        let gas = Err(format!("{} is not in these settings", row.chain_id));
        Self { chain_name: None, gas, key: Ok(false) }
    }

    fn json(&self, row: &WalletRow) -> Value {
        let mut json = row_json(row);
        let gas = self.gas.as_ref();
        json["chain"] = json!(self.chain_name);
        json["hasKey"] = json!(self.key.as_ref().is_ok_and(|has_key| *has_key));
        json["keyTrouble"] = json!(self.key.as_ref().err());
        json["balanceWei"] = json!(gas.ok().map(|gas| gas.balance_wei.to_string()));
        json["balance"] = json!(gas.ok().map(|gas| format_ether(gas.balance_wei)));
        let left = gas.ok().and_then(|gas| gas.n_transactions_left);
        json["transactionsLeft"] = json!(left.map(|left| left.to_string()));
        json["balanceTrouble"] = json!(gas.err());
        json
    }

    fn print(&self, row: &WalletRow) {
        let name = self.chain_name.as_deref().map_or(String::new(), |name| format!("{name}, "));
        let status = with_reason(row);
        println!("{}  {}  {status}", row.wallet_id, row.address);
        println!("   chain        {name}{}", row.chain_id);
        println!("   gas money    {}", self.gas.as_ref().map_or_else(unknown, GasMoney::to_string));
        println!("   next nonce   {}", row.next_account_nonce);
        println!("   open         {} transactions", row.n_open);
        let lease = match (row.is_leased, row.epoch) {
            (true, Some(epoch)) => format!("held by a replica, epoch {epoch}"),
            (false, Some(epoch)) => format!("free, epoch {epoch}"),
            (_, None) => "free, never held".to_owned(),
        };
        println!("   lease        {lease}");
        let key = match &self.key {
            Ok(true) => "in these settings".to_owned(),
            Ok(false) => "not in these settings".to_owned(),
            Err(trouble) => unknown(trouble),
        };
        println!("   key          {key}");
    }
}

impl fmt::Display for GasMoney {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = format_ether(self.balance_wei);
        match self.n_transactions_left {
            Some(left) => write!(f, "{held} of the chain's coin, for {left} full transactions"),
            None => write!(f, "{held} of the chain's coin; the chain asks more than is offered"),
        }
    }
}

fn unknown(trouble: &String) -> String {
    format!("unknown: {trouble}")
}

async fn add(arguments: &AddArguments, settings: &Settings) -> anyhow::Result<()> {
    let (name, chain_settings) = chain_named(settings, &arguments.chain)?;
    let keys = app::keys(chain_settings)?;
    let address = match arguments.address {
        Some(address) => address,
        None => arguments
            .mnemonic_index
            .and_then(|index| keys.mnemonic_address(index))
            .with_context(|| format!("chains.{name}.wallet_mnemonic is not set"))?,
    };
    if !has_key(&keys, address)? {
        anyhow::bail!(
            "none of chains.{name}.wallet_private_key, wallet_mnemonic and wallet_keystore_dir has \
             the key of {address}"
        );
    }
    let chain = app::chain(chain_settings)?;
    let pool = super::pool(settings).await?;
    let earlier = wallet_at(&pool, &chain, address).await?;
    match &earlier {
        None => register_wallet(&chain, &pool, address).await?,
        Some(row) => match row.status {
            WalletStatus::Active => (),
            WalletStatus::Retired => {
                reinstate_wallet(&chain, &pool, row, WalletStatus::Active)
                    .await?
                    .with_context(|| changed_meanwhile(row))?;
            }
            WalletStatus::Paused | WalletStatus::Draining | WalletStatus::Quarantined => {
                anyhow::bail!("{} is {}; see `quittance wallet resume`", address, with_reason(row))
            }
        },
    }
    let row = wallet_at(&pool, &chain, address).await?.context("the wallet is gone again")?;
    let gas = gas_money(&chain, chain_settings, address).await?;
    let was_active = earlier.is_some_and(|row| row.status == WalletStatus::Active);
    if arguments.json {
        let mut json = row_json(&row);
        json["chain"] = json!(name);
        json["balanceWei"] = json!(gas.balance_wei.to_string());
        json["wasActive"] = json!(was_active);
        println!("{json}");
    } else {
        let already = if was_active { "already " } else { "" };
        println!(
            "wallet {} ({address}) is {already}active on {name}, from account nonce {}",
            row.wallet_id, row.next_account_nonce
        );
        println!("it holds {gas}");
        println!("send gas money to {address} on {name} ({})", row.chain_id);
    }
    Ok(())
}

async fn drain(arguments: &DrainArguments, settings: &Settings) -> anyhow::Result<()> {
    let which = &arguments.which;
    let pool = super::pool(settings).await?;
    let row = find(&pool, which, settings).await?;
    let draining = WalletStatus::Draining;
    let mut did = match row.status {
        WalletStatus::Active | WalletStatus::Paused => {
            change(&pool, &row, draining, None).await?;
            "it signs nothing new".to_owned()
        }
        WalletStatus::Quarantined => {
            let looked = arguments.i_have_looked;
            leave_quarantine(&pool, &row, draining, looked, settings).await?
        }
        WalletStatus::Draining => "it is draining already".to_owned(),
        WalletStatus::Retired => "it is retired already".to_owned(),
    };
    let row = read(&pool, row.wallet_id).await?;
    // Nothing can be stored for a draining wallet, so what is not open now stays so. Otherwise the
    // replica that works with it retires it.
    if row.status == draining && row.n_open == 0 {
        let mut conn = pool.acquire().await?;
        let (from, retired) = ([draining], WalletStatus::Retired);
        set_wallet_status(&mut conn, row.wallet_id, &from, retired, Some("drained")).await?;
        did.push_str(", and nothing of it was open");
    }
    report(&pool, row.wallet_id, &did, which.json).await
}

async fn pause(arguments: &PauseArguments, settings: &Settings) -> anyhow::Result<()> {
    let which = &arguments.which;
    let pool = super::pool(settings).await?;
    let row = find(&pool, which, settings).await?;
    match row.status {
        WalletStatus::Active | WalletStatus::Paused => (),
        WalletStatus::Draining | WalletStatus::Retired | WalletStatus::Quarantined => {
            anyhow::bail!("{} is {}: it signs nothing new", row.address, with_reason(&row))
        }
    }
    change(&pool, &row, WalletStatus::Paused, arguments.reason.as_deref()).await?;
    report(&pool, row.wallet_id, "it signs nothing new; what is open is followed", which.json).await
}

async fn resume(arguments: &ResumeArguments, settings: &Settings) -> anyhow::Result<()> {
    let which = &arguments.which;
    let pool = super::pool(settings).await?;
    let row = find(&pool, which, settings).await?;
    let active = WalletStatus::Active;
    let did = match row.status {
        WalletStatus::Paused | WalletStatus::Draining => {
            change(&pool, &row, active, None).await?;
            "it signs again".to_owned()
        }
        WalletStatus::Quarantined => {
            let looked = arguments.i_have_looked;
            leave_quarantine(&pool, &row, active, looked, settings).await?
        }
        WalletStatus::Active => "it was never stopped".to_owned(),
        WalletStatus::Retired => anyhow::bail!(
            "{} is retired; `quittance wallet add --address {}` takes it back",
            row.address,
            row.address
        ),
    };
    report(&pool, row.wallet_id, &did, which.json).await
}

/// Takes a wallet out of quarantine, past the account nonces that somebody else used, and says what
/// was done.
async fn leave_quarantine(
    pool: &PgPool,
    row: &WalletRow,
    status: WalletStatus,
    has_looked: bool,
    settings: &Settings,
) -> anyhow::Result<String> {
    if !has_looked {
        anyhow::bail!(
            "{} is {}. Whoever did that has its key: if you do not know them, move its coin and use \
             another wallet. Otherwise repeat this with --i-have-looked, and the account nonces that \
             they used are skipped",
            row.address,
            with_reason(row)
        );
    }
    let chain_settings = settings.chains.values().find(|chain| chain.id == row.chain_id);
    let chain_settings = chain_settings
        .ok_or_else(|| UnusableArgument(format!("{} is not in the settings", row.chain_id)))?;
    let chain = app::chain(chain_settings)?;
    let account_nonce = reinstate_wallet(&chain, pool, row, status)
        .await?
        .with_context(|| changed_meanwhile(row))?;
    let next = row.next_account_nonce;
    Ok(if account_nonce > next {
        format!(
            "the chain counts {account_nonce} transactions of it and the books {next}: account \
             nonces {next} to {} are skipped",
            account_nonce - 1
        )
    } else {
        format!("the books count {next} transactions of it, as many as the chain: none is skipped")
    })
}

/// Moves a wallet from where it was read to `status`.
async fn change(
    pool: &PgPool,
    row: &WalletRow,
    status: WalletStatus,
    reason: Option<&str>,
) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    let is_moved =
        set_wallet_status(&mut conn, row.wallet_id, &[row.status], status, reason).await?;
    anyhow::ensure!(is_moved, changed_meanwhile(row));
    Ok(())
}

async fn report(pool: &PgPool, wallet_id: i32, did: &str, json: bool) -> anyhow::Result<()> {
    let row = read(pool, wallet_id).await?;
    let of_chain = wallets(&mut *pool.acquire().await?, Some(row.chain_id)).await?;
    if of_chain.iter().all(|row| row.status != WalletStatus::Active) {
        eprintln!("no wallet of {} is active now: payments wait", row.chain_id);
    }
    if json {
        let mut json = row_json(&row);
        json["did"] = json!(did);
        println!("{json}");
    } else {
        let (address, status) = (row.address, with_reason(&row));
        println!("wallet {wallet_id} ({address}) is {status}: {did}");
        if row.n_open > 0 {
            println!("open transactions: {}", row.n_open);
        }
    }
    Ok(())
}

fn row_json(row: &WalletRow) -> Value {
    json!({
        "walletId": row.wallet_id,
        "chainId": row.chain_id.to_string(),
        "address": row.address,
        "status": row.status.as_str(),
        "statusReason": row.status_reason,
        "nextAccountNonce": row.next_account_nonce,
        "nOpen": row.n_open,
        "lease": { "isHeld": row.is_leased, "epoch": row.epoch },
    })
}

fn with_reason(row: &WalletRow) -> String {
    let status = row.status.as_str();
    row.status_reason
        .as_ref()
        .map_or_else(|| status.to_owned(), |reason| format!("{status} ({reason})"))
}

fn changed_meanwhile(row: &WalletRow) -> String {
    format!("{} is not {} any more; look again", row.address, row.status.as_str())
}

async fn find(pool: &PgPool, which: &Which, settings: &Settings) -> anyhow::Result<WalletRow> {
    let only = which.chain.as_deref().map(|name| chain_named(settings, name)).transpose()?;
    let mut rows = wallets(&mut *pool.acquire().await?, only.map(|(_, chain)| chain.id)).await?;
    rows.retain(|row| match which.wallet {
        WalletName::Id(wallet_id) => row.wallet_id == wallet_id,
        WalletName::Address(address) => row.address == address,
    });
    match rows.len() {
        0 => anyhow::bail!("there is no wallet {}; see `quittance wallet list`", which.wallet),
        1 => Ok(rows.remove(0)),
        n => anyhow::bail!("{} is a wallet on {n} chains; say --chain or the id", which.wallet),
    }
}

async fn read(pool: &PgPool, wallet_id: i32) -> anyhow::Result<WalletRow> {
    let rows = wallets(&mut *pool.acquire().await?, None).await?;
    rows.into_iter()
        .find(|row| row.wallet_id == wallet_id)
        .with_context(|| format!("wallet {wallet_id} is gone"))
}

async fn wallet_at(
    pool: &PgPool,
    chain: &Chain,
    address: Address,
) -> anyhow::Result<Option<WalletRow>> {
    let rows = wallets(&mut *pool.acquire().await?, Some(chain.chain_id())).await?;
    Ok(rows.into_iter().find(|row| row.address == address))
}

/// The chain that the settings call `name`, or whose id it is.
fn chain_named<'a>(
    settings: &'a Settings,
    name: &str,
) -> Result<(&'a str, &'a ChainSettings), UnusableArgument> {
    let mut chains = settings.chains.iter();
    let found = chains.find(|(known, chain)| *known == name || chain.id.to_string() == name);
    found.map(|(known, chain)| (known.as_str(), chain)).ok_or_else(|| {
        let known: Vec<&str> = settings.chains.keys().map(String::as_str).collect();
        UnusableArgument(format!("there is no chain {name:?}; there is {}", known.join(", ")))
    })
}

fn has_key(keys: &Keys, address: Address) -> anyhow::Result<bool> {
    Ok(keys.find(address)?.is_some())
}

async fn gas_money(
    chain: &Chain,
    settings: &ChainSettings,
    address: Address,
) -> anyhow::Result<GasMoney> {
    let (balance_wei, market) = (chain.balance_wei(address).await?, chain.fee_facts().await?);
    let left = transactions_left(balance_wei, market, app::fee_limits(settings));
    Ok(GasMoney { balance_wei, n_transactions_left: left.ok() })
}
