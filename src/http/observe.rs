//! Around every request: an id, a span, a log line and two metrics.

use std::time::Instant;

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderName, HeaderValue},
    middleware::Next,
};
use tracing::Instrument as _;
use uuid::Uuid;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id of a caller's that is kept; a longer one is replaced.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Asked every few seconds by machines; their lines would bury the others.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Gives the request the caller's `X-Request-Id` or a new one, and sends it back.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let started = Instant::now();
    let request_id = request_id(&request);
    let method = request.method().clone();
    // The pattern, not the path: a caller's text must not make a new time series.
    let route = request.match_pattern().unwrap_or_else(|| "unknown".to_owned());
    let span = tracing::info_span!("request", request.id = %request_id);
    async move {
        let mut response = next.call(request).await?;
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID_HEADER, value);
        }
        let status = response.status().as_u16();
        let elapsed = started.elapsed();
        let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if PROBES.contains(&route.as_str()) {
            tracing::debug!(http.method = %method, http.route = route, http.status = status, duration_ms, "answered");
        } else {
            tracing::info!(http.method = %method, http.route = route, http.status = status, duration_ms, "answered");
        }
        metrics::counter!(
            "quittance_http_requests_total", "route" => route.clone(), "status" => status.to_string()
        )
        .increment(1);
        metrics::histogram!("quittance_http_request_duration_seconds", "route" => route)
            .record(elapsed.as_secs_f64());
        Ok(response)
    }
    .instrument(span)
    .await
}

fn request_id(request: &ServiceRequest) -> String {
    let given = request.headers().get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
    given
        .filter(|id| {
            (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_graphic())
        })
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}
