//! Looks at everything that a settlement needs, and says what is wrong.

use alloy::primitives::utils::format_ether;
use serde::Serialize;
use sqlx::PgPool;

use crate::{
    chain::{Block, LAG_BLOCKS_MAX},
    config::{ChainSettings, Settings},
    db,
    engine::Wallet,
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
    let mut findings = vec![finding("database", database(settings).await)];
    for (name, chain) in &settings.chains {
        let subject = format!("chains.{name}");
        findings.extend(endpoints(&subject, chain).await);
        findings.push(finding(&format!("{subject}.wallet"), wallet(chain).await));
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

/// One finding for each endpoint; a chain that has only one is called by its own name.
async fn endpoints(subject: &str, settings: &ChainSettings) -> Vec<Finding> {
    let chain = match super::chain(settings) {
        Ok(chain) => chain,
        Err(error) => return vec![finding(subject, Err(error))],
    };
    let newest = chain.examine_endpoints().await;
    let best = newest.iter().flatten().map(|block| block.number).max().unwrap_or(0);
    let is_only_one = newest.len() == 1;
    let findings = (1_usize..).zip(newest).map(|(position, newest)| {
        let seen =
            newest.map_err(anyhow::Error::from).and_then(|block| head(settings, &block, best));
        let endpoint = format!("{subject}.endpoint.{position}");
        finding(if is_only_one { subject } else { &endpoint }, seen)
    });
    findings.collect()
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

async fn wallet(settings: &ChainSettings) -> anyhow::Result<String> {
    let wallet = Wallet::from_private_key(&settings.wallet_private_key)?;
    let chain = super::chain(settings)?;
    let balance = chain.balance_wei(wallet.address()).await?;
    let held = format!("{} holds {} of the chain's coin", wallet.address(), format_ether(balance));
    if balance.is_zero() {
        anyhow::bail!("{held}; it cannot pay for gas");
    }
    Ok(held)
}
