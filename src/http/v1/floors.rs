//! `/v1/floors`: payments that are worth their gas. For operators.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{self, ServiceConfig},
};
use alloy::primitives::Address;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    domain::ChainId,
    http::{
        State, body,
        caller::{actor, operator},
        error::ApiError,
        resource,
    },
    limits::Floor,
    merchants::{Principal, Scope},
};

use super::caps::{address, amount, chain_id, malformed};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Price {
    base_units_per_coin: String,
}

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    let one = [(Method::PUT, web::route().to(set)), (Method::DELETE, web::route().to(remove))];
    config
        .service(resource("/v1/floors", [(Method::GET, web::route().to(list))]))
        .service(resource("/v1/floors/{chainId}/{asset}", one));
}

async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    operator(&request, &state, Scope::Read).await?;
    let floors = state.caps.floors().await?;
    let told: Vec<Value> = floors.iter().map(Floor::told).collect();
    Ok(HttpResponse::Ok().json(json!({ "floors": told })))
}

async fn set(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let operator = Principal::Operator(operator(&request, &state, Scope::Manage).await?);
    let (chain_id, asset) = named(&request)?;
    let price: Price = body::json(&request, payload).await?;
    let base_units_per_coin = amount("baseUnitsPerCoin", &price.base_units_per_coin)?;
    if base_units_per_coin.is_zero() {
        return Err(malformed("baseUnitsPerCoin: a coin costs something"));
    }
    let floor = Floor { chain_id, asset, base_units_per_coin };
    state.caps.set_floor(&actor(&request, &state, &operator), &floor).await?;
    Ok(HttpResponse::Ok().json(floor.told()))
}

async fn remove(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let operator = Principal::Operator(operator(&request, &state, Scope::Manage).await?);
    let (chain_id, asset) = named(&request)?;
    let actor = actor(&request, &state, &operator);
    match state.caps.remove_floor(&actor, chain_id, asset).await? {
        Some(floor) => Ok(HttpResponse::Ok().json(floor.told())),
        None => Err(ApiError::NotFound("there is no such floor".to_owned())),
    }
}

fn named(request: &HttpRequest) -> Result<(ChainId, Address), ApiError> {
    let text = |place: &str| request.match_info().get(place).unwrap_or_default();
    Ok((chain_id(text("chainId"))?, address("asset", text("asset"))?))
}
