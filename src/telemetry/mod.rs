//! Logs and metrics: set up once, used everywhere through `tracing` and `metrics`.

use std::{error::Error, sync::OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// The edges of the latency histograms, in seconds: from a cached answer to a settlement's deadline.
const DURATION_BUCKETS_SECONDS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Who writes the URLs of endpoints into spans, which may hold keys: kept silent, whatever is asked for.
const TELLS_URLS: &str = "alloy_transport_http=off";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For machines: one JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Sends log lines to standard error. `filter` is in the syntax of `RUST_LOG`, which wins when set.
/// Calling it again changes nothing.
pub fn init_logs(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(filter))
        .add_directive(TELLS_URLS.parse().expect("it is a directive"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a subscriber is set already, which is what was asked for.
    let _ = match format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Text => logs.try_init(),
    };
}

/// The process's metrics. The recorder is installed at the first call.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Suffix("_seconds".to_owned()),
                &DURATION_BUCKETS_SECONDS,
            )
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        // An error means that another recorder is set; ours then stays empty.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        handle
    })
}

/// An error and what caused it, in one line for the log: `read a row: connection refused`.
pub fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Transparent errors repeat what they wrap.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    line
}

fn describe() {
    metrics::describe_counter!("quittance_http_requests_total", "Requests, by route and status.");
    metrics::describe_histogram!("quittance_http_request_duration_seconds", "Time to answer.");
    metrics::describe_counter!("quittance_verify_total", "Verdicts of /verify, by reason.");
    metrics::describe_counter!("quittance_settle_total", "Answers of /settle, by outcome.");
    metrics::describe_counter!("quittance_promises_total", "Lists of promises, by who told them.");
    metrics::describe_gauge!("quittance_redis_up", "1 while Redis is used, by what for.");
    metrics::describe_counter!(
        "quittance_redis_errors_total",
        "Calls to Redis that failed, by what for."
    );
    metrics::describe_counter!(
        "quittance_rate_limits_total",
        "Requests held against their merchant's rate, by who counted."
    );
    metrics::describe_counter!(
        "quittance_rate_limited_total",
        "Requests that were too many, by class and by which limit."
    );
    metrics::describe_counter!("quittance_settlements_total", "Settlements decided on chain.");
    metrics::describe_gauge!("quittance_settle_waiting", "Settlements whose callers wait.");
    metrics::describe_gauge!("quittance_wallet_in_flight", "Transactions that no block holds yet.");
    metrics::describe_counter!("quittance_rpc_calls_total", "Calls to chain endpoints.");
    metrics::describe_counter!("quittance_rpc_errors_total", "Calls that failed.");
    metrics::describe_gauge!("quittance_rpc_endpoint_fit", "1 while an endpoint is used.");
    metrics::describe_gauge!("quittance_sanctions_age_seconds", "Age of the sanctions list.");
    metrics::describe_gauge!("quittance_sanctions_addresses", "Addresses on the sanctions list.");
    metrics::describe_counter!(
        "quittance_sanctions_reload_failures_total",
        "Changes of the sanctions file that could not be used."
    );
    metrics::describe_counter!(
        "quittance_list_refusals_dropped_total",
        "Denials that were not recorded, because too many waited."
    );
    metrics::describe_counter!("quittance_reorgs_total", "Reorganizations that were unwound.");
}
