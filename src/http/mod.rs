//! The HTTP surface: routes, extractors, answers. The one place that knows status codes.
//!
//! Every well-formed question about a payment is answered with 200, whatever the verdict: the Go and
//! Python clients lose the reason otherwise. Other statuses carry the protocol's shape too.

mod address;
mod admission;
mod body;
mod caller;
mod connection;
mod error;
mod observe;
mod operations;
mod quota;
mod settle;
mod supported;
mod v1;
mod verify;

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpResponse, Resource, Route, dev::HttpServiceFactory, guard, http::Method,
    middleware::from_fn, web,
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    audit::Records,
    domain::UnixTime,
    facilitator::{Facilitator, Listing},
    limits::{CapBook, Rates},
    merchants::{ApiKeys, Gate, Merchants, Onboarding, PayeeBook},
};

use observe::Pattern;

pub use connection::end_with_answer;
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
    pub gate: Arc<Gate>,
    /// Who is paid.
    pub merchants: Merchants,
    /// Where they are paid.
    pub payees: PayeeBook,
    /// The door for those who come by themselves, if it is open.
    pub onboarding: Option<Onboarding>,
    /// Their keys, and operators'.
    pub keys: ApiKeys,
    /// Who changed what.
    pub records: Records,
    /// How much each may ask at a time.
    pub rates: Arc<Rates>,
    /// How much is taken.
    pub caps: CapBook,
    /// How many proxies of the operator's stand in front.
    pub n_trusted_proxies: usize,
    /// The lists of those who are allowed and denied.
    pub listing: Listing,
    /// The wall clock; `app` owns it.
    pub clock: fn() -> UnixTime,
    /// Metrics of the process.
    pub metrics: &'static PrometheusHandle,
}

/// Which answer shape a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `isValid`, `invalidReason`, `invalidMessage`.
    Verify,
    /// `success`, `transaction`, `network`, `errorReason`, `errorMessage`.
    Settle,
    /// Whatever was asked for, or `error` and `message`.
    Api,
}

/// The service's routes.
pub fn service() -> impl HttpServiceFactory {
    web::scope("")
        .service(question("/verify", Shape::Verify, web::post().to(verify::verify)))
        .service(question("/settle", Shape::Settle, web::post().to(settle::settle)))
        .service(document("/supported", read().to(supported::supported)))
        .service(document("/openapi.yaml", read().to(openapi)))
        .configure(v1::routes)
        .default_service(web::to(async || error::not_found()))
        .wrap(from_fn(admission::of_address))
}

/// The routes of the operations port.
pub fn operations() -> impl HttpServiceFactory {
    web::scope("")
        .service(document("/livez", read().to(operations::livez)))
        .service(document("/readyz", read().to(operations::readyz)))
        .service(document("/metrics", read().to(operations::metrics)))
        .default_service(web::to(async || error::not_found()))
}

/// A path that answers questions about payments, in their shape whatever the method.
fn question(path: &'static str, shape: Shape, route: Route) -> Resource {
    let wrong_method = move || async move { error::wrong_method(shape, &[Method::POST]) };
    web::resource(path).app_data(Pattern(path)).route(route).default_service(web::to(wrong_method))
}

/// A path of the merchants' or the operator's API, with a route for each of its methods.
fn resource<const N: usize>(path: &'static str, routes: [(Method, Route); N]) -> Resource {
    let allowed = routes.each_ref().map(|(method, _)| method.clone());
    let wrong_method = move || {
        let answer = error::wrong_method(Shape::Api, &allowed);
        async move { answer }
    };
    let resource = web::resource(path).app_data(Pattern(path));
    let routed = routes.into_iter().fold(resource, |resource, (method, route)| match method {
        Method::GET => resource.route(route.guard(guard::Any(guard::Get()).or(guard::Head()))),
        method => resource.route(route.guard(guard::Method(method))),
    });
    routed.default_service(web::to(wrong_method))
}

/// A path that can be read and nothing else.
fn document(path: &'static str, route: Route) -> Resource {
    let wrong_method = || async { error::wrong_method(Shape::Api, &[Method::GET]) };
    web::resource(path).app_data(Pattern(path)).route(route).default_service(web::to(wrong_method))
}

/// GET, and HEAD wherever GET works (RFC 9110 section 9.1).
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/yaml").body(include_str!("../../openapi.yaml"))
}
