//! Around every request: an id, what is left of a limit, a span, a log line and two metrics.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{HeaderName, HeaderValue},
    },
    middleware::Next,
};
use metrics::{Counter, Histogram};
use tracing::Instrument as _;
use uuid::Uuid;

use super::quota;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id of a caller's that is kept; a longer one is replaced.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Asked every few seconds by machines; their lines would bury the others.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Where payments are judged. Its verdicts are most of what is asked.
const VERIFY: &str = "/verify";

/// The pattern of a route, not the path: a caller's text must not make a new time series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern(pub(super) &'static str);

const NO_ROUTE: Pattern = Pattern("unknown");

/// A request that was answered.
struct Answered {
    method: Method,
    route: &'static str,
    status: StatusCode,
    elapsed: Duration,
}

/// What is counted of one route and status.
struct Meter {
    requests: Counter,
    durations: Histogram,
}

/// Every meter that was needed so far. To look a metric up by its name and labels takes longer than
/// to count.
static METERS: RwLock<BTreeMap<(&'static str, u16), Meter>> = RwLock::new(BTreeMap::new());

/// Gives the request the caller's `X-Request-Id` or a new one, and sends it back.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let started = Instant::now();
    let request_id = request_id(&request);
    let method = request.method().clone();
    let span = tracing::info_span!("request", request.id = request_id.to_str().unwrap_or_default());
    async move {
        let mut response = next.call(request).await?;
        response.headers_mut().insert(REQUEST_ID_HEADER, request_id);
        quota::tell(&mut response);
        let Pattern(route) = *response.request().app_data().unwrap_or(&NO_ROUTE);
        let status = response.status();
        let answered = Answered { method, route, status, elapsed: started.elapsed() };
        answered.log();
        answered.count();
        Ok(response)
    }
    .instrument(span)
    .await
}

impl Answered {
    fn log(&self) {
        let Self { method, route, status, elapsed } = self;
        let (status, duration_ms) =
            (status.as_u16(), u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        if self.is_routine() {
            tracing::debug!(http.method = %method, http.route = route, http.status = status, duration_ms, "answered");
        } else {
            tracing::info!(http.method = %method, http.route = route, http.status = status, duration_ms, "answered");
        }
    }

    /// Probes, verdicts, and what is too much: they change nothing, there are thousands a second, and the
    /// metrics tell of them. A line costs more than all else that HTTP does for a verdict.
    fn is_routine(&self) -> bool {
        PROBES.contains(&self.route)
            || (self.route == VERIFY && self.status == StatusCode::OK)
            || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    fn count(&self) {
        let key = (self.route, self.status.as_u16());
        if let Some(meter) = METERS.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return meter.count(self.elapsed);
        }
        let mut meters = METERS.write().unwrap_or_else(PoisonError::into_inner);
        meters.entry(key).or_insert_with(|| Meter::of(key)).count(self.elapsed);
    }
}

impl Meter {
    fn of((route, status): (&'static str, u16)) -> Self {
        Self {
            requests: metrics::counter!(
                "quittance_http_requests_total", "route" => route, "status" => status.to_string()
            ),
            durations: metrics::histogram!(
                "quittance_http_request_duration_seconds", "route" => route
            ),
        }
    }

    fn count(&self, elapsed: Duration) {
        self.requests.increment(1);
        self.durations.record(elapsed.as_secs_f64());
    }
}

fn request_id(request: &ServiceRequest) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID_HEADER);
    let kept = given.filter(|id| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
            && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    kept.cloned().unwrap_or_else(|| {
        HeaderValue::try_from(Uuid::now_v7().to_string()).expect("hex digits and hyphens")
    })
}
