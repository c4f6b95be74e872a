//! The API of merchants and operators. One file for each kind of thing.

use actix_web::web::ServiceConfig;

/// Its routes.
pub(super) const fn routes(_config: &mut ServiceConfig) {}
