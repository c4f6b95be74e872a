//! The HTTP surface: routes, extractors, answers. The one place that knows status codes.
//!
//! Every well-formed question about a payment is answered with 200, whatever the verdict: the Go and
//! Python clients lose the reason otherwise. Other statuses carry the protocol's shape too.

mod body;
mod caller;
mod error;
mod observe;
mod operations;
mod settle;
mod supported;
mod verify;

use std::{sync::Arc, time::Duration};

use actix_web::{HttpResponse, dev::HttpServiceFactory, http::Method, web};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{domain::UnixTime, facilitator::Facilitator, merchants::Merchants};

pub use observe::observe;

/// The longest request body. The longest legal one seen, with a schema in its extensions, is 20 KiB.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// How long a client may take to send its headers.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What handlers share.
#[derive(Debug, Clone)]
pub struct State {
    /// The use cases.
    pub facilitator: Arc<Facilitator>,
    /// Who may ask.
    pub merchants: Merchants,
    /// The wall clock; `app` owns it.
    pub clock: fn() -> UnixTime,
    /// Metrics of the process.
    pub metrics: &'static PrometheusHandle,
}

/// Which answer shape a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Verify,
    Settle,
}

/// The service's routes.
pub fn service() -> impl HttpServiceFactory {
    web::scope("")
        .service(web::resource("/verify").route(web::post().to(verify::verify)).default_service(
            web::to(async || error::wrong_method(Some(Shape::Verify), &Method::POST)),
        ))
        .service(web::resource("/settle").route(web::post().to(settle::settle)).default_service(
            web::to(async || error::wrong_method(Some(Shape::Settle), &Method::POST)),
        ))
        .service(
            web::resource("/supported")
                .route(web::get().to(supported::supported))
                .default_service(web::to(async || error::wrong_method(None, &Method::GET))),
        )
        .service(
            web::resource("/openapi.yaml")
                .route(web::get().to(openapi))
                .default_service(web::to(async || error::wrong_method(None, &Method::GET))),
        )
        .default_service(web::to(async || error::not_found()))
}

/// The routes of the operations port.
pub fn operations() -> impl HttpServiceFactory {
    web::scope("")
        .route("/livez", web::get().to(operations::livez))
        .route("/readyz", web::get().to(operations::readyz))
        .route("/metrics", web::get().to(operations::metrics))
        .default_service(web::to(async || error::not_found()))
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/yaml").body(include_str!("../../openapi.yaml"))
}
