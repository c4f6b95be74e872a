//! `quittance dev`: everything a first payment needs, started and stopped together.
//!
//! A private Postgres, a local chain, the service, a merchant with a key, and one payment by a test
//! buyer. For newcomers and for tests; nothing here runs in production.

mod buyer;
mod child;
mod local_chain;
mod postgres;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::{
    hex,
    primitives::{Address, B256},
};
use anyhow::Context;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;

use crate::{
    audit::Actor,
    chain::Chain,
    config::{
        ChainSettings, DatabaseSettings, KeySettings, LimitSettings, ListenSettings, LogSettings,
        OnboardingSettings, RedisSettings, ReplicaSettings, SanctionsSettings, ServerSettings,
        Settings, SettleSettings,
    },
    db,
    domain::{ChainId, Depth, KeyMode},
    merchants::{
        ApiKey, ApiKeys, Assets, Authority, KeyOwner, Merchants, Name, NewKey, NewMerchant, Pepper,
        Scopes,
    },
};

pub use buyer::{Buyer, Receipt};
pub use local_chain::{Account, ChainRequest, LocalChain};
pub use postgres::PrivatePostgres;

/// The name of the merchant that `quittance dev` makes.
const MERCHANT_NAME: &str = "dev merchant";
/// How long the service may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The file that tells other programs where everything is.
const ENV_FILE: &str = "dev.env";

/// What the newcomer may choose. A port of 0 takes a free one.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// Where state lives; made anew at every start, except for the database cluster.
    pub state_dir: PathBuf,
    /// Where `start.mjs` is.
    pub anvil_scripts: PathBuf,
    /// How to start the chain.
    pub chain: ChainRequest,
    /// The service's port.
    pub port: u16,
    /// The operations port.
    pub operations_port: u16,
    /// Postgres' port.
    pub postgres_port: u16,
}

/// Everything around the service, running.
#[derive(Debug)]
pub struct DevServices {
    /// The database server.
    pub postgres: PrivatePostgres,
    /// The chain.
    pub chain: LocalChain,
    /// The settings that a service over them needs.
    pub settings: Settings,
    env_file: PathBuf,
}

/// The keys that a newcomer gets.
#[derive(Debug)]
pub struct DevKeys {
    /// The merchant's.
    pub merchant: ApiKey,
    /// The operator's.
    pub operator: ApiKey,
}

impl DevServices {
    /// Starts Postgres and the chain, and makes a fresh, migrated database.
    pub async fn start(options: &DevOptions) -> anyhow::Result<Self> {
        super::install_tls_provider();
        std::fs::create_dir_all(&options.state_dir)
            .with_context(|| format!("make the state folder {}", options.state_dir.display()))?;
        let env_file = options.state_dir.join(ENV_FILE);
        // A file of an earlier run would send other programs to what is gone.
        remove_if_there(&env_file)?;
        let data = options.state_dir.join("postgres");
        let (postgres, chain) = tokio::try_join!(
            PrivatePostgres::start(&data, options.postgres_port),
            LocalChain::start(&options.anvil_scripts, &options.chain),
        )?;
        let database_url = postgres.fresh_database("quittance").await?;
        let settings = settings(options, &chain, database_url)?;
        let pool = db::connect_patiently(&settings.database.url).await?;
        db::migrate(&pool).await?;
        pool.close().await;
        Ok(Self { postgres, chain, settings, env_file })
    }

    /// A client of the chain.
    pub fn client(&self) -> anyhow::Result<Chain> {
        let settings = self.settings.chains.values().next().context("no chain is configured")?;
        super::chain(settings)
    }

    /// Creates the merchant and the keys.
    pub async fn onboard(&self) -> anyhow::Result<DevKeys> {
        let pool = db::connect(&self.settings.database.url, 2).await?;
        let pepper = Pepper::new(self.settings.keys.pepper()?);
        let keys = onboard(&pool, pepper).await;
        pool.close().await;
        keys
    }

    /// Writes `dev.env`, so that other programs find everything.
    pub fn write_env(
        &self,
        service: SocketAddr,
        operations: SocketAddr,
        keys: &DevKeys,
    ) -> anyhow::Result<&Path> {
        let buyer = self.chain.payers.first().context("the chain has no payers")?;
        let lines = [
            ("QUITTANCE_URL", format!("http://{service}")),
            ("QUITTANCE_OPERATIONS_URL", format!("http://{operations}")),
            ("QUITTANCE_API_KEY", keys.merchant.reveal().to_owned()),
            ("QUITTANCE_OPERATOR_KEY", keys.operator.reveal().to_owned()),
            ("QUITTANCE__KEYS__PEPPER", self.settings.keys.pepper()?.expose_secret().to_owned()),
            ("RPC_URL", self.chain.rpc_url.clone()),
            ("DATABASE_URL", self.postgres.url("quittance")),
            ("CHAIN_ID", self.chain.chain_id.eip155().to_string()),
            ("USDC_ADDRESS", self.chain.usdc.to_string()),
            // What the examples of docs/merchants.md need to sell and to buy.
            ("PAY_TO", self.chain.payee.address.to_string()),
            ("BUYER_PRIVATE_KEY", buyer.private_key.clone()),
        ];
        let text: String = lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        // Written aside and moved, so that whoever waits for the file never reads half of it.
        let aside = self.env_file.with_extension("env.new");
        std::fs::write(&aside, text).with_context(|| format!("write {}", aside.display()))?;
        std::fs::rename(&aside, &self.env_file)?;
        Ok(&self.env_file)
    }

    /// Stops everything. The chain and its money are gone afterwards.
    pub async fn stop(self) -> anyhow::Result<()> {
        remove_if_there(&self.env_file)?;
        let (chain, postgres) = tokio::join!(self.chain.stop(), self.postgres.stop());
        chain.and(postgres)
    }
}

/// Waits until the service says that it can settle.
pub async fn wait_until_ready(operations: SocketAddr) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    let ready = async {
        loop {
            let answer = http.get(format!("http://{operations}/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(READY_TIMEOUT, ready).await.context("the service did not become ready")
}

async fn onboard(pool: &PgPool, pepper: Pepper) -> anyhow::Result<DevKeys> {
    let actor = Actor::service("dev");
    let (merchants, keys) = (Merchants::new(pool.clone()), ApiKeys::new(pool.clone(), pepper));
    let name = Name::parse(MERCHANT_NAME)?;
    let new = NewMerchant { name, wait_for: Depth::default(), assets: Assets::ANY };
    let merchant_id = merchants.create(&actor, &new).await?.merchant_id;
    let mut made = Vec::new();
    for (owner, scopes) in [
        (KeyOwner::Merchant(merchant_id), Scopes::OF_MERCHANTS),
        (KeyOwner::Operator, Scopes::OF_OPERATORS),
    ] {
        let mode = KeyMode::Test;
        let new = NewKey { owner, mode, scopes, name: None, lifetime_seconds: None };
        made.push(keys.create(&actor, Authority::Operator, &new).await?.0);
    }
    let [merchant, operator] = made.try_into().expect("two keys were made");
    Ok(DevKeys { merchant, operator })
}

fn settings(
    options: &DevOptions,
    chain: &LocalChain,
    database_url: String,
) -> anyhow::Result<Settings> {
    let chain_settings = ChainSettings {
        id: chain.chain_id,
        rpc_url: SecretString::from(chain.rpc_url.clone()),
        rpc_timeout_ms: ChainSettings::rpc_timeout_ms(),
        head_age_max_seconds: None,
        poll_interval_ms: ChainSettings::poll_interval_ms(),
        wallet_private_key: Some(SecretString::from(chain.wallet.private_key.clone())),
        wallet_mnemonic: None,
        sanctions_oracle: None,
        wallet_factories: None,
        wallet_keystore_dir: None,
        wallet_keystore_password: None,
        n_payments_per_transaction_max: ChainSettings::n_payments_per_transaction_max(),
        deploy_settler: ChainSettings::deploy_settler(),
        n_in_flight_max: ChainSettings::n_in_flight_max(),
        fee_wei_max: ChainSettings::fee_wei_max(),
        priority_fee_wei_max: ChainSettings::priority_fee_wei_max(),
        test: true,
    };
    let settings = Settings {
        server: ServerSettings { port: Some(options.port), ..ServerSettings::default() },
        operations: ListenSettings {
            port: Some(options.operations_port),
            ..ListenSettings::default()
        },
        database: DatabaseSettings {
            url: SecretString::from(database_url),
            n_connections_max: DatabaseSettings::n_connections_max(),
        },
        keys: KeySettings { pepper: Some(hex::encode(B256::random()).into()) },
        limits: LimitSettings::default(),
        onboarding: OnboardingSettings {
            // Newcomers can try it; nobody else hears the service.
            domain: Some("localhost".to_owned()),
            ..OnboardingSettings::default()
        },
        redis: RedisSettings::default(),
        settle: SettleSettings::default(),
        replica: ReplicaSettings::default(),
        sanctions: SanctionsSettings::default(),
        log: LogSettings::default(),
        chains: BTreeMap::from([("local".to_owned(), chain_settings)]),
    };
    Ok(settings.check()?)
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A payment's parties and terms, for the test buyer.
#[derive(Debug, Clone)]
pub struct Market {
    /// The chain.
    pub chain_id: ChainId,
    /// The token.
    pub asset: Address,
    /// Its EIP-712 name.
    pub token_name: String,
    /// Its EIP-712 version.
    pub token_version: String,
}
