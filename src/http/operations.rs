//! What orchestrators and Prometheus ask, on a port of its own.

use actix_web::{HttpResponse, http::header::ContentType, web};
use serde_json::json;

use super::State;

/// Alive: the process answers. Says nothing about its surroundings, so that nobody restarts it for
/// a database that is away.
pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "alive": true }))
}

/// Ready: database, endpoint and wallet can settle a payment now.
pub(super) async fn readyz(state: web::Data<State>) -> HttpResponse {
    let troubles = state.facilitator.troubles().await;
    let body = json!({ "ready": troubles.is_empty(), "troubles": troubles });
    match troubles.as_slice() {
        [] => HttpResponse::Ok().json(body),
        _ => HttpResponse::ServiceUnavailable().json(body),
    }
}

/// Metrics in Prometheus' text format.
pub(super) async fn metrics(state: web::Data<State>) -> HttpResponse {
    state.metrics.run_upkeep();
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(state.metrics.render())
}
