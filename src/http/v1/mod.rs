//! The API of merchants and operators. One file for each kind of thing.

mod policies;

use actix_web::{
    http::Method,
    web::{self, ServiceConfig},
};

use super::resource;

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(resource("/v1/policies", [(Method::POST, web::post().to(policies::register))]))
        .service(resource("/v1/policies/read", [(Method::POST, web::post().to(policies::read))]))
        .service(resource("/v1/policies/types", [(Method::GET, web::route().to(policies::types))]))
        .service(resource(
            "/v1/policies/{network}/{account}/{asset}",
            [(Method::GET, web::route().to(policies::show))],
        ));
}
