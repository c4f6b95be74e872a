//! `/v1/policies`: what owners of paying wallets sign about their spending.
//!
//! Nobody needs a key for it: the signature says who asks.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{self, ServiceConfig},
};
use alloy::primitives::Address;
use serde_json::{Value, json};

use crate::{
    domain::ChainId,
    facilitator::PolicyRejection,
    http::{State, address::ClientAddress, body, caller::operator, error::ApiError, resource},
    merchants::Scope,
    policies::{Subject, read_document, read_question, signing_types},
};

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(resource("/v1/policies", [(Method::POST, web::route().to(register))]))
        .service(resource("/v1/policies/read", [(Method::POST, web::route().to(read))]))
        .service(resource("/v1/policies/types", [(Method::GET, web::route().to(types))]))
        .service(resource(
            "/v1/policies/{network}/{account}/{asset}",
            [(Method::GET, web::route().to(show))],
        ));
}

async fn register(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let body: Value = body::json(&request, payload).await?;
    let signed = read_document(&body).map_err(|error| ApiError::Malformed(error.to_string()))?;
    let origin = ClientAddress::of(&request, state.n_trusted_proxies).to_string();
    let policy_id = state.facilitator.register_policy(&signed, &origin).await??;
    let kind = signed.document.kind().as_str();
    Ok(HttpResponse::Created().json(json!({ "policyId": policy_id, "kind": kind })))
}

async fn read(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let body: Value = body::json(&request, payload).await?;
    let signed = read_question(&body).map_err(|error| ApiError::Malformed(error.to_string()))?;
    let report = state.facilitator.read_policy(&signed, (state.clock)()).await??;
    Ok(HttpResponse::Ok().json(report.to_json()))
}

async fn types() -> HttpResponse {
    HttpResponse::Ok().json(signing_types())
}

async fn show(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    operator(&request, &state, Scope::Read).await?;
    let report = state.facilitator.policy_of(subject(&request)?).await?;
    let report = report.ok_or(PolicyRejection::Unknown)?;
    Ok(HttpResponse::Ok().json(report.to_json()))
}

/// Whose money the path names.
fn subject(request: &HttpRequest) -> Result<Subject, ApiError> {
    let text = |place| request.match_info().get(place).unwrap_or_default();
    let expected = |place, what| ApiError::Malformed(format!("{place}: expected {what}"));
    let address = |place| -> Result<Address, ApiError> {
        let address = text(place).strip_prefix("0x").and_then(|digits| digits.parse().ok());
        address.ok_or_else(|| expected(place, "an address, 0x and 40 hex digits"))
    };
    let chain_id: Option<ChainId> = text("network").parse().ok();
    Ok(Subject {
        chain_id: chain_id.ok_or_else(|| expected("network", "CAIP-2, such as eip155:8453"))?,
        account: address("account")?,
        asset: address("asset")?,
    })
}

impl From<PolicyRejection> for ApiError {
    fn from(rejection: PolicyRejection) -> Self {
        let sentence = rejection.to_string();
        match rejection {
            PolicyRejection::NotServed(_) => Self::Malformed(format!("network: {sentence}")),
            PolicyRejection::NotSigned(_) => Self::Forbidden(sentence),
            PolicyRejection::Conflict(_) => Self::Conflict(sentence),
            PolicyRejection::Unknown => Self::NotFound(sentence),
        }
    }
}
