//! `/v1/merchants/{merchantId}/limits`: how often a merchant may ask. For operators; a merchant reads it
//! in every answer.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{self, ServiceConfig},
};
use serde::Deserialize;

use crate::{
    domain::{OwnRates, Rate, RateClass},
    http::{
        State, body,
        caller::{actor, operator},
        error::ApiError,
        resource,
    },
    merchants::{Principal, Scope},
};

use super::merchants::merchant_id;

/// What is left out, or null, is that of the house.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    verify: Option<RateText>,
    settle: Option<RateText>,
    read: Option<RateText>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RateText {
    per_second: u32,
    burst: u32,
}

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    let limits = [
        (Method::GET, web::route().to(show)),
        (Method::PUT, web::route().to(set)),
        (Method::DELETE, web::route().to(unset)),
    ];
    config.service(resource("/v1/merchants/{merchantId}/limits", limits));
}

async fn show(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    operator(&request, &state, Scope::Read).await?;
    let own = state.merchants.rates(merchant_id(&request)?).await?;
    shown(&request, &state, &own)
}

async fn set(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let operator = Principal::Operator(operator(&request, &state, Scope::Manage).await?);
    let asked: Wishes = body::json(&request, payload).await?;
    replace(&request, &state, &operator, &asked).await
}

async fn unset(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let operator = Principal::Operator(operator(&request, &state, Scope::Manage).await?);
    replace(&request, &state, &operator, &Wishes::default()).await
}

async fn replace(
    request: &HttpRequest,
    state: &State,
    operator: &Principal,
    asked: &Wishes,
) -> Result<HttpResponse, ApiError> {
    let wishes = [
        (RateClass::Verify, asked.verify),
        (RateClass::Settle, asked.settle),
        (RateClass::Read, asked.read),
    ];
    let parsed =
        wishes.map(|(class, text)| Ok((class, text.map(|text| rate(class, text)).transpose()?)));
    let wishes = parsed.into_iter().collect::<Result<Vec<_>, ApiError>>()?;
    let actor = actor(request, state, operator);
    let own = state.merchants.set_rates(&actor, merchant_id(request)?, &wishes).await?;
    shown(request, state, &own)
}

fn rate(class: RateClass, text: RateText) -> Result<Rate, ApiError> {
    let rate = Rate::new(text.per_second, text.burst);
    rate.map_err(|error| ApiError::Malformed(format!("{}: {error}", class.as_str())))
}

fn shown(request: &HttpRequest, state: &State, own: &OwnRates) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(state.rates.limits().shown(merchant_id(request)?, own)))
}
