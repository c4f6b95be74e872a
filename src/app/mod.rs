//! The one place where things are constructed, started and stopped, and the only one that reads the
//! clock.

mod clock;
mod denial;
pub mod dev;
pub mod doctor;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::{Server, ServerHandle},
    middleware::from_fn,
    web::Data,
};
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tokio::{net::TcpSocket, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    audit::Records,
    chain::{Chain, ChainOptions},
    config::{
        ChainSettings, ConfigError, LimitSettings, LogFormatSetting, LogSettings, OPERATIONS_PORT,
        SERVICE_PORT, Settings,
    },
    db,
    domain::{ChainId, KeyMode, UnixTime},
    engine::{Engine, EngineOptions, FeeLimits, KeySources, Keys, Outcomes},
    facilitator::{Coalescer, Deniers, Facilitator, Listing, Oracle, Promises, ServedChain},
    http::{self, HEAD_TIMEOUT, State},
    limits::{CapBook, ClassLimit, RateLimits, Rates},
    merchants::{ApiKeys, Gate, GateOptions, Merchants, Onboarding, PayeeBook, Pepper, SignIns},
    promises::Marks,
    telemetry::{self, LogFormat},
    verify::Factories,
};

/// How long callers that wait for a settlement may go on doing so after the order to stop. Five
/// blocks of Base; then they are told `settlement_pending`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open connections may take after that.
const CLOSE_TIMEOUT_SECONDS: u64 = 15;
/// How long the loops may take to notice that they are to stop.
const LOOP_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. Longer than the pools of callers keep theirs (Go and reqwest
/// 90 s), so that it is they who close: a request sent into a closing connection is lost.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// How many connections may wait to be accepted. Linux allows 4,096 if nothing else is set.
const BACKLOG: u32 = 1024;
/// How often what histograms hold is added up. Each holds 24 bytes of every request until then, or
/// until somebody reads the metrics.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// A service that is ready to run.
#[derive(Debug)]
pub struct Application {
    address: SocketAddr,
    operations_address: SocketAddr,
    service: TcpListener,
    operations: TcpListener,
    pool: PgPool,
    engines: Vec<Arc<Engine>>,
    verifications: Vec<Arc<Coalescer>>,
    oracles: Vec<Arc<Oracle>>,
    deniers: Deniers,
    replica_id: Uuid,
    outcomes: Outcomes,
    promises: Arc<Promises>,
    state: State,
}

/// Now, by the wall clock.
pub(crate) fn now() -> UnixTime {
    clock::now()
}

/// Makes TLS work. Every program that talks to a chain calls it first; twice does no harm.
pub fn install_tls_provider() {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Starts logging as configured.
pub fn init_logs(settings: &LogSettings) {
    let format = match settings.format {
        LogFormatSetting::Json => LogFormat::Json,
        LogFormatSetting::Text => LogFormat::Text,
    };
    telemetry::init_logs(format, &settings.filter);
}

impl Application {
    /// Connects, binds and checks; nothing is served and nothing is sent yet.
    pub async fn build(settings: &Settings) -> anyhow::Result<Self> {
        install_tls_provider();
        let metrics = telemetry::metrics();
        let pepper = Pepper::new(settings.keys.pepper()?);
        let pool = db::connect(&settings.database.url, settings.database.n_connections_max).await?;
        if !db::is_migrated(&pool).await? {
            anyhow::bail!("the database lacks migrations; run `quittance migrate` first");
        }
        let at = &settings.server;
        let bound = bind(&at.host, at.port.unwrap_or(SERVICE_PORT)).await;
        let (service, address) = bound.context("bind the service's port")?;
        let at = &settings.operations;
        let bound = bind(&at.host, at.port.unwrap_or(OPERATIONS_PORT)).await;
        let (operations, operations_address) = bound.context("bind the operations port")?;

        let replica_id = Uuid::now_v7();
        let marks = settings.redis.url.as_ref().map(Marks::new).transpose()?;
        let promises = Arc::new(Promises::new(pool.clone(), marks));
        let chains = served(&pool, settings, replica_id, &promises)?;
        let engines = chains.values().map(|chain| Arc::clone(&chain.engine)).collect();
        let verifications = chains.values().map(ServedChain::verifications).collect();
        let oracles = chains.values().filter_map(ServedChain::oracle).collect();
        let deniers = denial::deniers(&pool, &settings.sanctions).await?;
        let outcomes = Outcomes::default();
        let settle_wait = Duration::from_millis(settings.settle.wait_ms);
        let facilitator = Facilitator::new(
            pool.clone(),
            chains,
            outcomes.clone(),
            Arc::clone(&promises),
            deniers.clone(),
            settle_wait,
        );
        let state = State {
            facilitator: Arc::new(facilitator),
            gate: Arc::new(gate(&pool, settings, &pepper)),
            merchants: Merchants::new(pool.clone()),
            payees: PayeeBook::new(pool.clone()),
            onboarding: onboarding(&pool, settings, &pepper)?,
            keys: ApiKeys::new(pool.clone(), pepper),
            caps: CapBook::new(pool.clone()),
            records: Records::new(pool.clone()),
            rates: Arc::new(rates(settings)?),
            n_trusted_proxies: settings.server.n_trusted_proxies,
            listing: Listing::new(pool.clone()),
            clock: clock::now,
            metrics,
        };
        Ok(Self {
            address,
            operations_address,
            service,
            operations,
            pool,
            engines,
            verifications,
            oracles,
            deniers,
            replica_id,
            outcomes,
            promises,
            state,
        })
    }

    /// Where the service listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where liveness, readiness and metrics are.
    pub const fn operations_address(&self) -> SocketAddr {
        self.operations_address
    }

    /// Serves until `stop` resolves, then answers who waits, stops the loops and closes.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let stop_loops = CancellationToken::new();
        let stop_waiting = CancellationToken::new();
        let mut loops = JoinSet::new();
        for engine in &self.engines {
            let (engine, stop) = (Arc::clone(engine), stop_loops.clone());
            let follower = Arc::clone(&engine);
            let follower_stop = stop.clone();
            loops.spawn(async move { follower.run_follower(&follower_stop).await });
            loops.spawn(async move { engine.run_wallets(&stop).await });
        }
        for verifications in &self.verifications {
            let (verifications, stop) = (Arc::clone(verifications), stop_loops.clone());
            loops.spawn(async move { verifications.run(&stop).await });
        }
        denial::start(
            &mut loops,
            &self.pool,
            self.replica_id,
            &self.deniers,
            &self.oracles,
            &stop_loops,
        );
        let (metrics, stop_metrics) = (self.state.metrics, stop_loops.clone());
        loops.spawn(async move { keep_up(metrics, &stop_metrics).await });
        let (gate, stop_gate) = (Arc::clone(&self.state.gate), stop_loops.clone());
        loops.spawn(async move { gate.write_uses_until(&stop_gate).await });
        let (rates, stop_rates) = (Arc::clone(&self.state.rates), stop_loops.clone());
        loops.spawn(async move { rates.run(&stop_rates).await });
        let (promises, stop_promises) = (Arc::clone(&self.promises), stop_loops.clone());
        let chain_ids: Vec<ChainId> =
            self.engines.iter().map(|engine| engine.chain().chain_id()).collect();
        loops.spawn(async move { promises.run(&chain_ids, &stop_promises).await });
        let (outcomes, pool, engines) =
            (self.outcomes.clone(), self.pool.clone(), self.engines.clone());
        let waiting = stop_waiting.clone();
        loops.spawn(async move { outcomes.run(&pool, &engines, &waiting).await });
        let (service, operations) =
            (serve(self.service, self.state.clone())?, operate(self.operations, self.state)?);
        let (service_handle, operations_handle) = (service.handle(), operations.handle());
        tracing::info!(
            address = %self.address, operations = %self.operations_address, "listening"
        );
        let served = tokio::spawn(service);
        let operated = tokio::spawn(operations);
        // A service that promises and does not settle is worse than none: it ends with its loops.
        let is_broken = tokio::select! {
            () = stop => false,
            _ = loops.join_next() => true,
        };
        tracing::info!("stopping");
        drain(service_handle, &stop_waiting).await;
        stop_loops.cancel();
        let stopped = async { while loops.join_next().await.is_some() {} };
        if tokio::time::timeout(LOOP_STOP_TIMEOUT, stopped).await.is_err() {
            tracing::warn!("a loop did not stop in time; what it began is found at the next start");
        }
        operations_handle.stop(false).await;
        served.await.context("serve")??;
        operated.await.context("serve operations")??;
        self.promises.let_go();
        self.pool.close().await;
        tracing::info!("stopped");
        anyhow::ensure!(!is_broken, "a loop of the engine ended by itself; the log says why");
        Ok(())
    }
}

/// Adds up what histograms hold, so that they stay small when nobody reads the metrics.
async fn keep_up(metrics: &PrometheusHandle, stop: &CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(METRICS_INTERVAL)).await.is_some() {
        metrics.run_upkeep();
    }
}

/// Stops accepting, lets callers have their answers, and tells the slow ones that theirs is pending.
async fn drain(service: ServerHandle, stop_waiting: &CancellationToken) {
    let stopped = service.stop(true);
    tokio::pin!(stopped);
    if tokio::time::timeout(DRAIN_TIMEOUT, &mut stopped).await.is_err() {
        stop_waiting.cancel();
        stopped.await;
    }
    stop_waiting.cancel();
}

/// Listens at the first address that the host stands for and that can be bound.
async fn bind(host: &str, port: u16) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let at = (host, port);
    let mut failure = std::io::Error::other("the host stands for no address");
    let named = tokio::net::lookup_host(at).await;
    for address in named.with_context(|| format!("look up {}", at.0))? {
        match listen(address) {
            Ok(listener) => {
                let address = listener.local_addr()?;
                return Ok((listener, address));
            }
            Err(error) => failure = error,
        }
    }
    Err(failure).with_context(|| format!("listen on {}:{}", at.0, at.1))
}

/// Not `TcpListener::bind`, which lets only 128 connections wait: when a thousand callers come at
/// once, the others are heard a second later.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does, so that a restarted service gets its port back.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// The door for merchants who come by themselves, if the operator opens it.
fn onboarding(
    pool: &PgPool,
    settings: &Settings,
    pepper: &Pepper,
) -> anyhow::Result<Option<Onboarding>> {
    let Some(domain) = &settings.onboarding.domain else { return Ok(None) };
    let sign_ins = SignIns::new(domain, pepper.clone()).map_err(|error| ConfigError::Invalid {
        key: "onboarding.domain".to_owned(),
        problem: format!("{domain:?} is no host with or without a port: {error}"),
    })?;
    let keys = ApiKeys::new(pool.clone(), pepper.clone());
    let n_per_day = settings.onboarding.n_merchants_per_day_max;
    Ok(Some(Onboarding::new(pool.clone(), keys, sign_ins, n_per_day)))
}

fn gate(pool: &PgPool, settings: &Settings, pepper: &Pepper) -> Gate {
    let options = GateOptions {
        pepper: pepper.clone(),
        failed_attempts_per_minute: settings.limits.failed_attempts_per_minute,
        failed_attempts_burst: settings.limits.failed_attempts_burst,
    };
    Gate::new(pool.clone(), options)
}

/// The chains that are served.
fn served(
    pool: &PgPool,
    settings: &Settings,
    replica_id: Uuid,
    promises: &Arc<Promises>,
) -> anyhow::Result<BTreeMap<ChainId, ServedChain>> {
    let lease = Duration::from_millis(settings.replica.lease_ms);
    let mut chains = BTreeMap::new();
    for (name, chain) in &settings.chains {
        let engine = engine(pool, chain, lease, replica_id)
            .with_context(|| format!("set up chains.{name}"))?;
        let mode = if chain.test { KeyMode::Test } else { KeyMode::Live };
        let factories =
            chain.wallet_factories.clone().map_or_else(Factories::default, Factories::of);
        let oracle = chain.sanctions_oracle;
        let served = ServedChain::new(Arc::new(engine), mode, factories, promises, oracle);
        chains.insert(chain.id, served);
    }
    Ok(chains)
}

fn engine(
    pool: &PgPool,
    settings: &ChainSettings,
    lease: Duration,
    replica_id: Uuid,
) -> anyhow::Result<Engine> {
    let options = EngineOptions {
        n_in_flight_max: settings.n_in_flight_max,
        n_together_max: settings.n_payments_per_transaction_max,
        deploys_settler: settings.deploy_settler,
        lease,
        poll_interval: Duration::from_millis(settings.poll_interval_ms),
        fee_limits: fee_limits(settings),
    };
    Ok(Engine::new(chain(settings)?, pool.clone(), keys(settings)?, options, replica_id))
}

/// What counts how often each asks, shared through Redis if there is one.
fn rates(settings: &Settings) -> anyhow::Result<Rates> {
    Ok(Rates::new(rate_limits(&settings.limits)?, settings.redis.url.as_ref())?)
}

/// How much is taken at a time, by the settings.
pub(crate) fn rate_limits(settings: &LimitSettings) -> Result<RateLimits, ConfigError> {
    let class = |rate, n_at_once_max| ClassLimit { rate, n_at_once_max };
    Ok(RateLimits {
        verify: class(settings.verify()?, settings.verify_under_way_max),
        settle: class(settings.settle()?, settings.settle_under_way_max),
        read: class(settings.read()?, settings.read_under_way_max),
        address: settings.address()?,
    })
}

/// What a transaction on a chain offers at most.
pub(crate) const fn fee_limits(settings: &ChainSettings) -> FeeLimits {
    FeeLimits {
        fee_wei_max: settings.fee_wei_max,
        priority_fee_wei_max: settings.priority_fee_wei_max,
    }
}

/// The keys that the settings of a chain open.
pub(crate) fn keys(settings: &ChainSettings) -> anyhow::Result<Keys> {
    Ok(Keys::open(KeySources {
        private_key: settings.wallet_private_key.clone(),
        mnemonic: settings.wallet_mnemonic.clone(),
        keystore_dir: settings.wallet_keystore_dir.clone(),
        keystore_password: settings.wallet_keystore_password.clone(),
    })?)
}

/// The door to the chain of those settings.
pub(crate) fn chain(settings: &ChainSettings) -> anyhow::Result<Chain> {
    let options = ChainOptions {
        chain_id: settings.id,
        rpc_urls: settings.rpc_urls(),
        timeout: settings.rpc_timeout(),
        head_age_max: settings.head_age_max(),
        clock: clock::now,
    };
    Ok(Chain::new(&options)?)
}

fn serve(listener: TcpListener, state: State) -> std::io::Result<Server> {
    let state = Data::new(state);
    // Signatures are checked on the workers, one for each core: 30 µs, which delays the other
    // connections of a worker less than handing them to another thread would cost. Connections are
    // accepted in a thread of their own, and what `run_until` spawns has the main runtime.
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .wrap(from_fn(http::observe))
            .wrap(from_fn(http::end_with_answer))
            .service(http::service())
    })
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(HEAD_TIMEOUT)
    // A caller that hangs up has not been told; its place must be given back at once.
    .h1_allow_half_closed(false)
    .shutdown_timeout(CLOSE_TIMEOUT_SECONDS)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

fn operate(listener: TcpListener, state: State) -> std::io::Result<Server> {
    let state = Data::new(state);
    let server = HttpServer::new(move || {
        App::new().app_data(state.clone()).wrap(from_fn(http::observe)).service(http::operations())
    })
    .workers(1)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(HEAD_TIMEOUT)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}
