//! Settings: a file, overridden by the environment. Read once, checked whole, unknown keys refused.

mod limits;
mod sanctions;
mod source;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use alloy::primitives::Address;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::domain::ChainId;

pub use limits::LimitSettings;
pub use sanctions::SanctionsSettings;
pub use source::load;

/// Why the settings cannot be used. The process ends with status 64.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or variable is missing, unreadable, unknown or of the wrong type.
    #[error(transparent)]
    Read(#[from] config::ConfigError),
    /// A `…_FILE` variable names a file that cannot be read.
    #[error("{variable} names {}, which cannot be read: {source}", path.display())]
    SecretFile {
        /// The variable.
        variable: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A value is readable but makes no sense.
    #[error("{key}: {problem}")]
    Invalid {
        /// Where, as in the file.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// Where the service listens if nothing else is set.
pub const SERVICE_PORT: u16 = 8402;
/// Where liveness, readiness and metrics are if nothing else is set.
pub const OPERATIONS_PORT: u16 = 9402;

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The service.
    #[serde(default)]
    pub server: ServerSettings,
    /// Liveness, readiness and metrics.
    #[serde(default)]
    pub operations: ListenSettings,
    /// Postgres.
    pub database: DatabaseSettings,
    /// API keys.
    #[serde(default)]
    pub keys: KeySettings,
    /// How much is taken at a time.
    #[serde(default)]
    pub limits: LimitSettings,
    /// Merchants who come by themselves.
    #[serde(default)]
    pub onboarding: OnboardingSettings,
    /// Redis, which is not needed.
    #[serde(default)]
    pub redis: RedisSettings,
    /// Settlement.
    #[serde(default)]
    pub settle: SettleSettings,
    /// Several processes over one database.
    #[serde(default)]
    pub replica: ReplicaSettings,
    /// The list of those who are sanctioned.
    #[serde(default)]
    pub sanctions: SanctionsSettings,
    /// Logs.
    #[serde(default)]
    pub log: LogSettings,
    /// The chains that are served, by a name of the operator's.
    #[serde(default)]
    pub chains: BTreeMap<String, ChainSettings>,
}

/// Where to listen, and behind what.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// The address to bind.
    pub host: String,
    /// The port; 0 takes a free one, and none stands for the default.
    pub port: Option<u16>,
    /// How many proxies of the operator's stand in front. With n of them, the address that asks is the
    /// n-th from the right of `X-Forwarded-For`; with none, the header is not believed.
    pub n_trusted_proxies: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: None, n_trusted_proxies: 0 }
    }
}

/// How API keys are kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeySettings {
    /// What keys are hashed with. The same for every process over one database; with another one, no key
    /// is known any more.
    pub pepper: Option<SecretString>,
}

impl KeySettings {
    /// The pepper.
    ///
    /// # Errors
    /// When there is none. Commands that neither make nor check keys never ask.
    pub fn pepper(&self) -> Result<&SecretString, ConfigError> {
        self.pepper.as_ref().ok_or_else(|| {
            let problem = "not set, and API keys are hashed with it: make one with `openssl rand -hex 32` \
                           and give it to every process as QUITTANCE__KEYS__PEPPER, or in a file that \
                           QUITTANCE__KEYS__PEPPER_FILE names";
            ConfigError::Invalid { key: "keys.pepper".to_owned(), problem: problem.to_owned() }
        })
    }
}

/// Merchants who come by themselves, with Sign-In with Ethereum (EIP-4361).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnboardingSettings {
    /// The name under which merchants reach the service, as in a URL: a host, and a port where it is not the
    /// usual one. It stands in what they sign. Without it, only operators make merchants.
    pub domain: Option<String>,
    /// How many may come in a day.
    pub n_merchants_per_day_max: u64,
}

impl Default for OnboardingSettings {
    fn default() -> Self {
        Self { domain: None, n_merchants_per_day_max: 100 }
    }
}

/// Where to listen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSettings {
    /// The address to bind.
    pub host: String,
    /// The port; 0 takes a free one, and none stands for the listener's own default.
    pub port: Option<u16>,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: None }
    }
}

/// How to reach Postgres.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database`.
    pub url: SecretString,
    /// How many connections this process may hold.
    #[serde(default = "DatabaseSettings::n_connections_max")]
    pub n_connections_max: u32,
}

impl DatabaseSettings {
    /// The default number of connections.
    pub const fn n_connections_max() -> u32 {
        20
    }
}

/// How to reach Redis.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/database`, or `rediss://` for TLS. Without it, Postgres answers
    /// what Redis would, and each process holds merchants to their rates by itself.
    pub url: Option<SecretString>,
}

/// The shortest pepper: 128 bits, were it hex.
const PEPPER_CHARS_MIN: usize = 32;

/// The longest wait that official clients survive: the Go and Python clients give up after 30 s.
const SETTLE_WAIT_MS_MAX: u64 = 28_000;

/// How `/settle` behaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SettleSettings {
    /// How long a caller waits before it is told `settlement_pending`, in milliseconds.
    pub wait_ms: u64,
}

impl Default for SettleSettings {
    fn default() -> Self {
        Self { wait_ms: 25_000 }
    }
}

/// How processes over one database share wallets and chains.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicaSettings {
    /// How long a wallet or a chain is owned without renewal, in milliseconds: after so long, a process
    /// that died is replaced. The same for all processes.
    pub lease_ms: u64,
}

impl Default for ReplicaSettings {
    fn default() -> Self {
        Self { lease_ms: 10_000 }
    }
}

/// What is logged and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `json` or `text`.
    pub format: LogFormatSetting,
    /// In the syntax of `RUST_LOG`, which wins when set.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        // What is not HTTP is the sender's mistake; actix would log it as an error of ours.
        let filter = "info,actix_http::h1=off".to_owned();
        Self { format: LogFormatSetting::Json, filter }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormatSetting {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How many endpoints a chain may have: each is handed every transaction.
const N_ENDPOINTS_MAX: usize = 8;
/// How old an endpoint's newest block may be if nothing else is set: thirty blocks of Base.
const HEAD_AGE_MAX_SECONDS: u64 = 60;

/// One chain and the wallet that pays gas on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainSettings {
    /// CAIP-2, such as `eip155:8453`.
    #[serde(deserialize_with = "source::chain_id")]
    pub id: ChainId,
    /// The JSON-RPC endpoints, the preferred first, separated by commas. A secret, because providers
    /// put keys into it.
    pub rpc_url: SecretString,
    /// How long one call may take, in milliseconds.
    #[serde(default = "ChainSettings::rpc_timeout_ms")]
    pub rpc_timeout_ms: u64,
    /// How old an endpoint's newest block may be, in seconds. Without it, a minute, and any age where
    /// `test` is set.
    #[serde(default)]
    pub head_age_max_seconds: Option<u64>,
    /// How often a new block is looked for while something is unmined, in milliseconds.
    #[serde(default = "ChainSettings::poll_interval_ms")]
    pub poll_interval_ms: u64,
    /// A hot wallet's key, in hex. Its wallet is registered by itself.
    #[serde(default)]
    pub wallet_private_key: Option<SecretString>,
    /// A BIP-39 phrase of hot wallets, which `quittance wallet add` registers by their index.
    #[serde(default)]
    pub wallet_mnemonic: Option<SecretString>,
    /// A folder of keystore files of hot wallets, which `quittance wallet add` registers.
    #[serde(default)]
    pub wallet_keystore_dir: Option<PathBuf>,
    /// What opens them.
    #[serde(default)]
    pub wallet_keystore_password: Option<SecretString>,
    /// The factories whose wallets are deployed along with a payment (ERC-6492), in place of the default
    /// ones: a list, or addresses separated by commas. An empty one is none.
    #[serde(default, deserialize_with = "source::addresses")]
    pub wallet_factories: Option<Vec<Address>>,
    /// A contract on the chain that says who is sanctioned, in the interface of Chainalysis.
    #[serde(default, deserialize_with = "source::address")]
    pub sanctions_oracle: Option<Address>,
    /// How many payments may share a transaction, within what the chain allows one.
    #[serde(default = "ChainSettings::n_payments_per_transaction_max")]
    pub n_payments_per_transaction_max: usize,
    /// Whether the settler contract is deployed where it is absent and payments could share it.
    #[serde(default = "ChainSettings::deploy_settler")]
    pub deploy_settler: bool,
    /// How many transactions of a wallet may be unmined at a time.
    #[serde(default = "ChainSettings::n_in_flight_max")]
    pub n_in_flight_max: usize,
    /// What a transaction offers per gas at most, in wei.
    #[serde(default = "ChainSettings::fee_wei_max", deserialize_with = "source::wei")]
    pub fee_wei_max: u128,
    /// What it offers as priority fee at most, in wei.
    #[serde(default = "ChainSettings::priority_fee_wei_max", deserialize_with = "source::wei")]
    pub priority_fee_wei_max: u128,
    /// Whether its money is play money: keys `qk_test_…` work there, and only there.
    #[serde(default)]
    pub test: bool,
}

impl ChainSettings {
    /// The default patience with an endpoint.
    pub const fn rpc_timeout_ms() -> u64 {
        5_000
    }

    /// The default eagerness for blocks.
    pub const fn poll_interval_ms() -> u64 {
        50
    }

    /// The default limit of the offer: 100 gwei, twenty thousand times Base's minimum base fee.
    pub const fn fee_wei_max() -> u128 {
        100_000_000_000
    }

    /// The default limit of the priority fee: 2 gwei.
    pub const fn priority_fee_wei_max() -> u128 {
        2_000_000_000
    }

    /// The default company: what fits into a transaction's gas.
    pub const fn n_payments_per_transaction_max() -> usize {
        100
    }

    /// By default the settler is deployed.
    pub const fn deploy_settler() -> bool {
        true
    }

    /// The default number of unmined transactions; nodes guarantee an account 16 places.
    pub const fn n_in_flight_max() -> usize {
        16
    }
}

impl Settings {
    /// Refuses values that are readable but make no sense. Wallets have a check of their own.
    pub fn check(self) -> Result<Self, ConfigError> {
        let within = |key: &str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            invalid(key, format!("{value} is not between {min} and {max}"))
        };
        within("settle.wait_ms", self.settle.wait_ms, 100, SETTLE_WAIT_MS_MAX)?;
        within("database.n_connections_max", self.database.n_connections_max.into(), 4, 1_000)?;
        within("server.n_trusted_proxies", count(self.server.n_trusted_proxies), 0, 16)?;
        self.limits.check()?;
        if let Some(pepper) = &self.keys.pepper
            && pepper.expose_secret().chars().count() < PEPPER_CHARS_MIN
        {
            let problem = format!("is shorter than {PEPPER_CHARS_MIN} characters");
            return invalid("keys.pepper", problem);
        }
        let newcomers = self.onboarding.n_merchants_per_day_max;
        within("onboarding.n_merchants_per_day_max", newcomers, 1, 1_000_000)?;
        within("replica.lease_ms", self.replica.lease_ms, 1_000, 60_000)?;
        within("sanctions.age_max_hours", self.sanctions.age_max_hours, 1, 8_760)?;
        within("sanctions.poll_seconds", self.sanctions.poll_seconds, 1, 3_600)?;
        if let Some(url) = &self.redis.url {
            let url = url.expose_secret();
            if !url.starts_with("redis://") && !url.starts_with("rediss://") {
                return invalid(
                    "redis.url",
                    "begins with neither redis:// nor rediss://".to_owned(),
                );
            }
        }
        if self.chains.is_empty() {
            return invalid("chains", "no chain is configured".to_owned());
        }
        let mut names_by_id = BTreeMap::new();
        for (name, chain) in &self.chains {
            let key = |field: &str| format!("chains.{name}.{field}");
            within(&key("rpc_timeout_ms"), chain.rpc_timeout_ms, 100, 60_000)?;
            chain.check_rpc_url(&key("rpc_url"))?;
            let head_age_max_seconds = chain.head_age_max_seconds.unwrap_or(HEAD_AGE_MAX_SECONDS);
            within(&key("head_age_max_seconds"), head_age_max_seconds, 5, 86_400)?;
            within(&key("poll_interval_ms"), chain.poll_interval_ms, 10, 10_000)?;
            within(&key("n_in_flight_max"), count(chain.n_in_flight_max), 1, 64)?;
            let n_payments = count(chain.n_payments_per_transaction_max);
            within(&key("n_payments_per_transaction_max"), n_payments, 1, 100)?;
            if let Some(other) = names_by_id.insert(chain.id, name) {
                return invalid(&key("id"), format!("{} is chains.{other} already", chain.id));
            }
        }
        Ok(self)
    }

    /// Refuses chains that nothing could sign on. Not asked by commands that sign nothing, so that they
    /// can run where no key is.
    pub fn check_wallets(self) -> Result<Self, ConfigError> {
        for (name, chain) in &self.chains {
            let has_wallets = chain.wallet_private_key.is_some()
                || chain.wallet_mnemonic.is_some()
                || chain.wallet_keystore_dir.is_some();
            if !has_wallets {
                let problem = "no hot wallet: set it, or wallet_mnemonic, or wallet_keystore_dir";
                let key = format!("chains.{name}.wallet_private_key");
                return invalid(&key, problem.to_owned());
            }
        }
        Ok(self)
    }
}

impl ChainSettings {
    /// How long one call may take.
    pub const fn rpc_timeout(&self) -> Duration {
        Duration::from_millis(self.rpc_timeout_ms)
    }

    /// The JSON-RPC endpoints, the preferred first.
    pub fn rpc_urls(&self) -> Vec<SecretString> {
        let urls = self.rpc_url.expose_secret().split(',');
        urls.map(|url| SecretString::from(url.trim())).collect()
    }

    /// How old an endpoint's newest block may be, if that is limited.
    pub fn head_age_max(&self) -> Option<Duration> {
        let default = (!self.test).then_some(HEAD_AGE_MAX_SECONDS);
        self.head_age_max_seconds.or(default).map(Duration::from_secs)
    }

    /// Names endpoints by their position, and repeats none.
    fn check_rpc_url(&self, key: &str) -> Result<(), ConfigError> {
        let urls = self.rpc_urls();
        let n = urls.len();
        if n > N_ENDPOINTS_MAX {
            return invalid(key, format!("names {n} endpoints; {N_ENDPOINTS_MAX} are the most"));
        }
        for (position, url) in (1_usize..).zip(&urls) {
            if url.expose_secret().is_empty() {
                return invalid(key, format!("endpoint {position} of {n} is empty"));
            }
            let mut before = urls.iter().take(position - 1);
            if before.any(|other| other.expose_secret() == url.expose_secret()) {
                return invalid(key, format!("endpoint {position} of {n} is named before"));
            }
        }
        Ok(())
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn invalid<T>(key: &str, problem: String) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { key: key.to_owned(), problem })
}
