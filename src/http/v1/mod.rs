//! The API of merchants and operators. One file for each kind of thing.

mod audit;
mod caps;
mod floors;
mod keys;
mod limits;
mod lists;
mod me;
mod merchants;
mod onboarding;
mod page;
mod payees;
mod policies;

use actix_web::{
    HttpRequest,
    http::Method,
    web::{self, ServiceConfig},
};
use uuid::Uuid;

use super::{error::ApiError, resource};

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(resource("/v1/me", [(Method::GET, web::route().to(me::show))]))
        .service(resource("/v1/audit", [(Method::GET, web::route().to(audit::list))]))
        .configure(keys::routes)
        .configure(limits::routes)
        .configure(merchants::routes)
        .configure(payees::routes)
        .configure(onboarding::routes)
        .configure(caps::routes)
        .configure(floors::routes)
        .configure(lists::routes)
        .configure(policies::routes);
}

/// The id in that place of the path; what is no id is nobody's.
fn id(request: &HttpRequest, place: &str, unknown: &str) -> Result<Uuid, ApiError> {
    let text = request.match_info().get(place).unwrap_or_default();
    text.parse().map_err(|_| ApiError::NotFound(unknown.to_owned()))
}
