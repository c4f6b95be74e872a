//! `/v1/policies`: what owners of paying wallets sign about their spending.
//!
//! Nobody needs a key for it: the signature says who asks.

use actix_web::{HttpRequest, HttpResponse, web};
use alloy::primitives::Address;
use serde_json::{Value, json};

use crate::{
    domain::ChainId,
    facilitator::PolicyRejection,
    merchants::Scope,
    policies::{PolicyReport, Subject, read_document, read_question, signing_types},
};

use super::super::{Shape, State, address::ClientAddress, body, caller::operator, error::ApiError};

pub(super) async fn register(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> HttpResponse {
    answered(registered(&request, &state, payload).await)
}

async fn registered(
    request: &HttpRequest,
    state: &State,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let body = json_body(request, payload).await?;
    let signed = read_document(&body).map_err(|error| ApiError::Malformed(error.to_string()))?;
    let origin = ClientAddress::of(request, state.n_trusted_proxies).to_string();
    let policy_id = state.facilitator.register_policy(&signed, &origin).await??;
    let kind = signed.document.kind().as_str();
    Ok(HttpResponse::Created().json(json!({ "policyId": policy_id, "kind": kind })))
}

pub(super) async fn read(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> HttpResponse {
    answered(read_by_owner(&request, &state, payload).await)
}

async fn read_by_owner(
    request: &HttpRequest,
    state: &State,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let body = json_body(request, payload).await?;
    let signed = read_question(&body).map_err(|error| ApiError::Malformed(error.to_string()))?;
    let report = state.facilitator.read_policy(&signed, (state.clock)()).await??;
    Ok(told(&report))
}

pub(super) async fn show(
    request: HttpRequest,
    state: web::Data<State>,
    path: web::Path<(String, String, String)>,
) -> HttpResponse {
    answered(shown(&request, &state, path.into_inner()).await)
}

async fn shown(
    request: &HttpRequest,
    state: &State,
    (network, account, asset): (String, String, String),
) -> Result<HttpResponse, ApiError> {
    operator(request, state, Scope::Read).await?;
    let chain_id = network.parse::<ChainId>().map_err(|_| {
        ApiError::Malformed("network: expected CAIP-2, such as eip155:8453".to_owned())
    })?;
    let address = |name: &str, text: &str| -> Result<Address, ApiError> {
        let prefixed = text.strip_prefix("0x").and_then(|digits| digits.parse().ok());
        prefixed.ok_or_else(|| ApiError::Malformed(format!("{name}: expected an address")))
    };
    let (account, asset) = (address("account", &account)?, address("asset", &asset)?);
    let subject = Subject { chain_id, account, asset };
    match state.facilitator.policy_of(subject).await? {
        Some(report) => Ok(told(&report)),
        None => Err(PolicyRejection::Unknown.into()),
    }
}

pub(super) async fn types() -> HttpResponse {
    HttpResponse::Ok().json(signing_types())
}

fn told(report: &PolicyReport) -> HttpResponse {
    HttpResponse::Ok().json(report.to_json())
}

async fn json_body(request: &HttpRequest, payload: web::Payload) -> Result<Value, ApiError> {
    let bytes = body::read(request, payload).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::Malformed(format!("the body is not JSON: {error}")))
}

fn answered(answer: Result<HttpResponse, ApiError>) -> HttpResponse {
    answer.unwrap_or_else(|error| error.answer(Shape::Api, "", None))
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
