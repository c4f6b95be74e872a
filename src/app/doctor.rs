//! Looks at everything that a settlement needs, and says what is wrong.

use alloy::primitives::{Address, utils::format_ether};
use anyhow::Context as _;
use secrecy::SecretString;
use serde::Serialize;
use sqlx::PgPool;

use crate::{
    chain::{Block, EndpointReport, LAG_BLOCKS_MAX},
    config::{ChainSettings, Settings},
    db,
    engine::{self, WalletStatus},
    promises::Marks,
    telemetry::causes,
};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What, such as `database` or `chains.base`.
    pub subject: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// Looks at the database and at every configured chain. Changes nothing.
pub async fn examine(settings: &Settings) -> Vec<Finding> {
    super::install_tls_provider();
    let pepper = settings.keys.pepper().map(|_| "API keys can be made and checked".to_owned());
    let mut findings = vec![
        finding("database", database(settings).await),
        finding("keys", pepper.map_err(anyhow::Error::from)),
    ];
    if let Some(url) = &settings.redis.url {
        findings.push(finding("redis", redis(url).await));
    }
    if settings.sanctions.path.is_some() {
        findings.push(finding("sanctions", sanctions(settings).await));
    }
    for (name, chain) in &settings.chains {
        let subject = format!("chains.{name}");
        findings.extend(endpoints(&subject, chain).await);
        findings.push(finding(&format!("{subject}.wallet"), wallets(settings, chain).await));
        if let Some(address) = chain.sanctions_oracle {
            let asked = oracle(chain, address).await;
            findings.push(finding(&format!("{subject}.sanctions_oracle"), asked));
        }
    }
    findings
}

fn finding(subject: &str, seen: anyhow::Result<String>) -> Finding {
    let ok = seen.is_ok();
    let detail = seen.unwrap_or_else(|error| format!("{error:#}"));
    Finding { subject: subject.to_owned(), ok, detail }
}

async fn database(settings: &Settings) -> anyhow::Result<String> {
    let pool: PgPool = db::connect(&settings.database.url, 1).await?;
    let migrated = db::is_migrated(&pool).await;
    pool.close().await;
    if migrated? {
        return Ok("answers, and has every migration".to_owned());
    }
    anyhow::bail!("answers, but lacks migrations; run `quittance migrate`")
}

/// Whether marks of payers can be kept there.
async fn redis(url: &SecretString) -> anyhow::Result<String> {
    let server = Marks::new(url)?.examine().await?;
    Ok(format!("answers, and evicts nothing ({server})"))
}

/// Whether the list can be read, and is fresh.
async fn sanctions(settings: &Settings) -> anyhow::Result<String> {
    let sanctions = super::denial::sanctions(&settings.sanctions).await?;
    let sanctions = sanctions.context("there is no file")?;
    let (file, age_hours) = (sanctions.in_force(), sanctions.age().as_secs() / 3_600);
    let (n, header) = (file.n_addresses(), file.header());
    let seen =
        format!("{n} addresses of {} {}, {age_hours} hours old", header.source, header.version);
    let max = settings.sanctions.age_max_hours;
    anyhow::ensure!(!sanctions.is_stale(), "{seen}; it may be {max} hours old at most");
    Ok(seen)
}

/// Whether the contract answers, asked about several addresses and about one.
async fn oracle(settings: &ChainSettings, oracle: Address) -> anyhow::Result<String> {
    let chain = super::chain(settings)?;
    chain.sanctioned(oracle, &[Address::ZERO, oracle]).await?;
    chain.sanctioned(oracle, &[Address::ZERO]).await?;
    Ok(format!("{oracle} answers"))
}

/// One finding for each endpoint; a chain that has only one is called by its own name.
async fn endpoints(subject: &str, settings: &ChainSettings) -> Vec<Finding> {
    let chain = match super::chain(settings) {
        Ok(chain) => chain,
        Err(error) => return vec![finding(subject, Err(error))],
    };
    let reports = chain.examine_endpoints().await;
    let best = reports.iter().flatten().map(|report| report.newest.number).max().unwrap_or(0);
    let is_only_one = reports.len() == 1;
    let findings = (1_usize..).zip(reports).map(|(position, report)| {
        let report = report.map_err(anyhow::Error::from);
        let seen = report.and_then(|report| endpoint_seen(settings, report, best));
        let endpoint = format!("{subject}.endpoint.{position}");
        finding(if is_only_one { subject } else { &endpoint }, seen)
    });
    findings.collect()
}

fn endpoint_seen(
    settings: &ChainSettings,
    report: EndpointReport,
    best: u64,
) -> anyhow::Result<String> {
    let seen = head(settings, &report.newest, best)?;
    let lens = report.lens.map_err(|error| anyhow::anyhow!("{seen}; {}", causes(&error)))?;
    let without = match report.simulates {
        true => "",
        false => "; without eth_simulateV1, by which assets that are not well known are tried",
    };
    Ok(format!("{seen}; verifies {lens}{without}"))
}

fn head(settings: &ChainSettings, block: &Block, best: u64) -> anyhow::Result<String> {
    let age = super::clock::now().seconds().saturating_sub(block.timestamp.seconds());
    let seen = format!("{} at block {}, {age} seconds old", settings.id, block.number);
    let n_behind = best.saturating_sub(block.number);
    if n_behind > LAG_BLOCKS_MAX {
        anyhow::bail!("{seen}; {n_behind} blocks behind another endpoint");
    }
    if let Some(max) = settings.head_age_max().filter(|max| age > max.as_secs()) {
        anyhow::bail!("{seen}; it may be {} seconds old at most", max.as_secs());
    }
    Ok(seen)
}

/// The wallets that are in use: those of the books, and the one that the settings name.
async fn wallets(settings: &Settings, chain_settings: &ChainSettings) -> anyhow::Result<String> {
    let keys = super::keys(chain_settings)?;
    let recorded = async {
        let pool = db::connect(&settings.database.url, 1).await?;
        let mut conn = pool.acquire().await?;
        anyhow::Ok(engine::wallets(&mut conn, Some(chain_settings.id)).await?)
    };
    // The database has its own finding.
    let recorded = recorded.await.unwrap_or_default();
    let in_use = recorded.iter().filter(|row| row.status != WalletStatus::Retired);
    let mut addresses: Vec<Address> = in_use.map(|row| row.address).collect();
    addresses.extend(keys.configured().filter(|configured| !addresses.contains(configured)));
    if addresses.is_empty() {
        anyhow::bail!("there is none; `quittance wallet add` registers one");
    }
    let chain = super::chain(chain_settings)?;
    let (mut lines, mut is_well) = (Vec::new(), true);
    for address in addresses {
        let balance = chain.balance_wei(address).await?;
        let is_quarantined = recorded
            .iter()
            .any(|row| row.address == address && row.status == WalletStatus::Quarantined);
        let trouble = if balance.is_zero() {
            "; it cannot pay for gas"
        } else if keys.find(address)?.is_none() {
            "; its key is in none of the settings"
        } else if !chain.code(address).await?.is_empty() {
            "; it carries code, an EIP-7702 delegation"
        } else if is_quarantined {
            "; it is quarantined, because its key was used elsewhere"
        } else {
            ""
        };
        is_well &= trouble.is_empty();
        let held = format_ether(balance);
        lines.push(format!("{address} holds {held} of the chain's coin{trouble}"));
    }
    let lines = lines.join(", ");
    anyhow::ensure!(is_well, lines);
    Ok(lines)
}
