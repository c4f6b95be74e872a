//! `GET /supported`: public, and the same while an endpoint is away.

use actix_web::{HttpResponse, web};

use super::State;

pub(super) async fn supported(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(state.facilitator.supported())
}
