//! `/v1/me`: whose key this is, and what it may be used for.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::{
    http::{State, caller::anybody, error::ApiError},
    merchants::Principal,
};

pub(super) async fn show(
    request: HttpRequest,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let principal = anybody(&request, &state).await?;
    let key = state.keys.find(principal.api_key_id()).await?;
    let merchant = match &principal {
        Principal::Merchant(caller) => Some(state.merchants.find(caller.merchant_id).await?),
        Principal::Operator(_) => None,
    };
    Ok(HttpResponse::Ok().json(json!({
        "role": key.owner.as_str(),
        "key": key.shown(),
        "merchant": merchant.map(|merchant| merchant.shown()),
    })))
}
