//! The endpoints of one chain: whom to ask, and what to remember of who answered.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy::{
    primitives::U64,
    rpc::{
        client::RpcClient,
        json_rpc::{RpcRecv, RpcSend},
    },
    transports::http::Http,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::{
    domain::{ChainId, UnixTime},
    telemetry::causes,
};

use super::{
    ChainOptions,
    error::{ChainError, ChainErrorKind, EndpointName},
    lens::LensState,
    standing::{Fitness, Head, Standings},
};

/// How long a TCP and TLS connection to an endpoint may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For how many timeouts of one call further endpoints are tried. Whoever asks waits meanwhile.
const PATIENCE_IN_TIMEOUTS: u32 = 2;

/// One endpoint. It does not print its URL, which may hold a key.
pub(super) struct Endpoint {
    pub(super) index: usize,
    pub(super) name: EndpointName,
    pub(super) rpc: RpcClient,
    pub(super) lens: LensState,
    pub(super) chain_id: ChainId,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.chain_id)
    }
}

impl Endpoint {
    fn new(
        options: &ChainOptions,
        index: usize,
        name: EndpointName,
        url: &SecretString,
    ) -> Result<Self, ChainError> {
        let unusable = |reason: String| ChainError {
            operation: "prepare the endpoint".to_owned(),
            chain_id: options.chain_id,
            endpoint: Some(name),
            source: ChainErrorKind::Unusable(reason),
        };
        // The URL is not repeated in the error: it may hold a key.
        let url = reqwest::Url::parse(url.expose_secret())
            .map_err(|e| unusable(format!("rpc_url is not a URL: {e}")))?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            .build()
            .map_err(|e| unusable(e.without_url().to_string()))?;
        let rpc = RpcClient::new(Http::with_client(http, url), true);
        let endpoint =
            Self { index, name, rpc, lens: LensState::default(), chain_id: options.chain_id };
        endpoint.tell_fitness(Fitness::Unidentified);
        Ok(endpoint)
    }

    /// One call to this endpoint, which changes nothing in what is known of it.
    pub(super) async fn call<Params: RpcSend, Reply: RpcRecv>(
        &self,
        method: &'static str,
        params: Params,
    ) -> Result<Reply, ChainErrorKind> {
        self.count("quittance_rpc_calls_total", method);
        self.rpc.request(method, params).await.map_err(|source| {
            self.count("quittance_rpc_errors_total", method);
            ChainErrorKind::of_call(source)
        })
    }

    pub(super) fn count(&self, counter: &'static str, method: &'static str) {
        let (chain, endpoint) = self.labels();
        metrics::counter!(counter, "method" => method, "chain" => chain, "endpoint" => endpoint)
            .increment(1);
    }

    /// Refuses an `eth_chainId` of another chain.
    pub(super) fn expect_chain(&self, answered: u64) -> Result<(), ChainErrorKind> {
        if answered == self.chain_id.eip155() {
            return Ok(());
        }
        Err(ChainErrorKind::OtherChain(answered))
    }

    fn tell_fitness(&self, fitness: Fitness) {
        let (chain, endpoint) = self.labels();
        metrics::gauge!("quittance_rpc_endpoint_fit", "chain" => chain, "endpoint" => endpoint)
            .set(if fitness == Fitness::Fit { 1.0 } else { 0.0 });
    }

    /// Zero for an endpoint that cannot run the lens.
    pub(super) fn tell_lens(&self, n_payments_max: usize) {
        let (chain, endpoint) = self.labels();
        metrics::gauge!(
            "quittance_rpc_endpoint_lens_payments", "chain" => chain, "endpoint" => endpoint
        )
        .set(f64::from(u32::try_from(n_payments_max).unwrap_or(u32::MAX)));
    }

    fn labels(&self) -> (String, String) {
        (self.chain_id.to_string(), self.name.position.to_string())
    }
}

/// The endpoints of one chain and what is known of them.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) list: Vec<Arc<Endpoint>>,
    pub(super) timeout: Duration,
    head_age_max: Option<Duration>,
    clock: fn() -> UnixTime,
    standings: Mutex<Standings>,
}

/// How long whoever asks is made to wait for another endpoint's word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    lasts: Duration,
    started_at: Instant,
}

impl Patience {
    pub(super) fn is_over(self) -> bool {
        self.started_at.elapsed() >= self.lasts
    }
}

/// Why nobody answered: the first endpoint that was asked, and its trouble.
pub(super) type Failure = (EndpointName, ChainErrorKind);

impl Endpoints {
    pub(super) fn new(options: &ChainOptions) -> Result<Self, ChainError> {
        let n_endpoints = options.rpc_urls.len();
        let list = options.rpc_urls.iter().enumerate().map(|(index, url)| {
            let name = EndpointName { position: index.saturating_add(1), n_endpoints };
            Endpoint::new(options, index, name, url).map(Arc::new)
        });
        let list: Vec<_> = list.collect::<Result<_, _>>()?;
        if list.is_empty() {
            return Err(ChainError {
                operation: "prepare the endpoints".to_owned(),
                chain_id: options.chain_id,
                endpoint: None,
                source: ChainErrorKind::Unusable("there is none".to_owned()),
            });
        }
        Ok(Self {
            list,
            timeout: options.timeout,
            head_age_max: options.head_age_max,
            clock: options.clock,
            standings: Mutex::new(Standings::new(n_endpoints)),
        })
    }

    /// Puts a question to the endpoints in turn, until one answers. A refusal of the call is an
    /// answer, and nobody else is asked.
    pub(super) async fn ask<T, Asked: Future<Output = Result<T, ChainErrorKind>>>(
        &self,
        question: impl Fn(Arc<Endpoint>) -> Asked,
    ) -> Result<T, Failure> {
        let patience = self.patience();
        let mut failure: Option<Failure> = None;
        for endpoint in self.candidates() {
            if failure.is_some() && patience.is_over() {
                break;
            }
            let asked = match self.identify_if_new(&endpoint).await {
                Ok(()) => self.note_outcome(&endpoint, question(Arc::clone(&endpoint)).await),
                Err(source) => {
                    failure.get_or_insert((endpoint.name, source));
                    continue;
                }
            };
            match asked {
                Ok(answer) => return Ok(answer),
                Err(source) if source.is_trouble() => {
                    failure.get_or_insert((endpoint.name, source));
                }
                Err(source) => return Err((endpoint.name, source)),
            }
        }
        Err(failure.expect("there is an endpoint, and it did not answer"))
    }

    /// How long further endpoints are tried, from now on.
    pub(super) fn patience(&self) -> Patience {
        Patience {
            lasts: self.timeout.saturating_mul(PATIENCE_IN_TIMEOUTS),
            started_at: Instant::now(),
        }
    }

    /// The endpoints that a question goes to, in this order.
    pub(super) fn candidates(&self) -> Vec<Arc<Endpoint>> {
        let indices = self.lock().candidates();
        indices.into_iter().filter_map(|index| self.list.get(index).cloned()).collect()
    }

    /// Those, and after them all others.
    pub(super) fn candidates_and_others(&self) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.candidates();
        for endpoint in &self.list {
            if !endpoints.iter().any(|candidate| candidate.index == endpoint.index) {
                endpoints.push(Arc::clone(endpoint));
            }
        }
        endpoints
    }

    pub(super) fn fitness(&self, endpoint: &Endpoint) -> Fitness {
        self.lock().fitness(endpoint.index)
    }

    pub(super) fn is_identified(&self, endpoint: &Endpoint) -> bool {
        self.lock().is_identified(endpoint.index)
    }

    pub(super) fn wants_identity(&self, endpoint: &Endpoint) -> bool {
        self.lock().wants_identity(endpoint.index, Instant::now())
    }

    pub(super) fn is_aside(&self, endpoint: &Endpoint) -> bool {
        self.lock().is_aside(endpoint.index, Instant::now())
    }

    /// Nothing is asked of an endpoint, and nothing sent to it, before it has said that it is of this
    /// chain.
    pub(super) async fn identify_if_new(&self, endpoint: &Endpoint) -> Result<(), ChainErrorKind> {
        if self.is_identified(endpoint) { Ok(()) } else { self.identify(endpoint).await }
    }

    /// Asks an endpoint which chain it is of, and remembers.
    pub(super) async fn identify(&self, endpoint: &Endpoint) -> Result<(), ChainErrorKind> {
        let answered: Result<U64, _> = endpoint.call("eth_chainId", ()).await;
        let identified = answered.and_then(|answered| endpoint.expect_chain(answered.to()));
        match &identified {
            Ok(()) => {
                self.note(endpoint, |standings| {
                    standings.note_identity(endpoint.index, true, Instant::now());
                });
            }
            Err(ChainErrorKind::OtherChain(other)) => self.note_other_chain(endpoint, *other),
            Err(source) => self.note_failure(endpoint, source),
        }
        identified
    }

    /// Remembers whether an endpoint answered, whatever it answered.
    pub(super) fn note_outcome<T>(
        &self,
        endpoint: &Endpoint,
        outcome: Result<T, ChainErrorKind>,
    ) -> Result<T, ChainErrorKind> {
        match &outcome {
            Err(ChainErrorKind::OtherChain(other)) => self.note_other_chain(endpoint, *other),
            // It answers, and is of use for everything else.
            Err(ChainErrorKind::NoLens(_)) => {
                self.note(endpoint, |standings| standings.note_answer(endpoint.index));
            }
            Err(source) if source.is_trouble() => self.note_failure(endpoint, source),
            Ok(_) | Err(_) => {
                self.note(endpoint, |standings| standings.note_answer(endpoint.index));
            }
        }
        outcome
    }

    /// Remembers the newest block that an endpoint told of.
    pub(super) fn note_head(&self, endpoint: &Endpoint, number: u64, time: UnixTime) {
        let age_seconds = (self.clock)().seconds().saturating_sub(time.seconds());
        let is_stale = self.head_age_max.is_some_and(|max| age_seconds > max.as_secs());
        let head = Head { number, is_stale };
        self.note(endpoint, |standings| {
            standings.note_head(endpoint.index, head, Instant::now());
        });
    }

    pub(super) fn note_failure(&self, endpoint: &Endpoint, source: &ChainErrorKind) {
        let before = self.fitness(endpoint);
        self.note(endpoint, |standings| standings.note_failure(endpoint.index, Instant::now()));
        if before != Fitness::Failing {
            tracing::warn!(
                chain.id = %endpoint.chain_id, endpoint = %endpoint.name, error = causes(source),
                "an endpoint does not answer, and is set aside"
            );
        }
    }

    fn note_other_chain(&self, endpoint: &Endpoint, other: u64) {
        let before = self.fitness(endpoint);
        self.note(endpoint, |standings| {
            standings.note_identity(endpoint.index, false, Instant::now());
        });
        if before != Fitness::OtherChain {
            tracing::error!(
                chain.id = %endpoint.chain_id, endpoint = %endpoint.name,
                "an endpoint is of eip155:{other}, and is not used"
            );
        }
    }

    /// Changes what is known of an endpoint, and tells when that makes it fit or unfit.
    fn note(&self, endpoint: &Endpoint, change: impl FnOnce(&mut Standings)) {
        let (before, after) = {
            let mut standings = self.lock();
            let before = standings.fitness(endpoint.index);
            change(&mut standings);
            (before, standings.fitness(endpoint.index))
        };
        if before == after {
            return;
        }
        endpoint.tell_fitness(after);
        let (chain, name) = (endpoint.chain_id, endpoint.name);
        match after {
            Fitness::Behind => {
                tracing::warn!(chain.id = %chain, endpoint = %name, "an endpoint lags behind others");
            }
            Fitness::Stale => {
                tracing::warn!(chain.id = %chain, endpoint = %name, "an endpoint has no fresh block");
            }
            Fitness::Fit if before != Fitness::Unidentified => {
                tracing::info!(chain.id = %chain, endpoint = %name, "an endpoint is fit again");
            }
            // Told with their causes, by whoever saw them.
            Fitness::Fit | Fitness::Unidentified | Fitness::Failing | Fitness::OtherChain => (),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standings> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
