//! `/v1/caps`: how much is taken. A merchant caps itself, an operator everybody.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{self, ServiceConfig},
};
use alloy::primitives::{Address, U256};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    domain::{Amount, ApiKeyId, ChainId, MerchantId},
    http::{
        State, body,
        caller::{actor, principal},
        error::ApiError,
        resource,
    },
    limits::{Cap, CapError, CapId, CapPeriod, CapTerms, Measure, Setter, Subject, Usage, Viewer},
    merchants::{Principal, Scope},
};

use super::page::{limit, page};

const UNKNOWN: &str = "there is no such cap";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    after: Option<Uuid>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wish {
    subject: Whom,
    merchant_id: Option<Uuid>,
    key_id: Option<Uuid>,
    payer: Option<String>,
    measure: What,
    period: String,
    chain_id: Option<String>,
    asset: Option<String>,
    limit: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Whom {
    Merchant,
    Key,
    Payer,
    PayerAtMerchant,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Amount,
    Count,
    Gas,
}

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    let all = [(Method::GET, web::route().to(list)), (Method::POST, web::route().to(set))];
    let one = [(Method::GET, web::route().to(show)), (Method::DELETE, web::route().to(remove))];
    config.service(resource("/v1/caps", all)).service(resource("/v1/caps/{capId}", one));
}

async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Read).await?;
    let query: Query = body::query(&request)?;
    let limit = limit(query.limit)?;
    let after = query.after.map(CapId::from_uuid);
    let caps = state.caps.list(viewer(&principal), after, i64::from(limit)).await?;
    let told: Vec<Value> = caps.iter().map(Cap::told).collect();
    Ok(HttpResponse::Ok().json(page("caps", &told, "capId", limit)))
}

async fn show(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Read).await?;
    let found = state.caps.find(viewer(&principal), cap_id(&request)?).await?;
    let (cap, usage) = found.ok_or_else(unknown)?;
    let mut told = cap.told();
    told["usage"] = usage.iter().map(Usage::told).collect();
    Ok(HttpResponse::Ok().json(told))
}

async fn set(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let wish: Wish = body::json(&request, payload).await?;
    let setter = setter(&principal);
    let terms = wish.terms(&state, setter).await?;
    let most = amount("limit", &wish.limit)?;
    let actor = actor(&request, &state, &principal);
    let cap = state.caps.set(&actor, setter, terms, most).await?;
    Ok(HttpResponse::Ok().json(cap.told()))
}

async fn remove(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let actor = actor(&request, &state, &principal);
    let removed = state.caps.remove(&actor, setter(&principal), cap_id(&request)?).await?;
    Ok(HttpResponse::Ok().json(removed.ok_or_else(unknown)?.told()))
}

impl Wish {
    async fn terms(&self, state: &State, setter: Setter) -> Result<CapTerms, ApiError> {
        let chain_id = self.chain_id.as_deref().map(chain_id).transpose()?;
        let asset = self.asset.as_deref().map(|text| address("asset", text)).transpose()?;
        let measure = match (self.measure, chain_id, asset) {
            (What::Amount, Some(chain_id), Some(asset)) => Measure::Amount { chain_id, asset },
            (What::Gas, Some(chain_id), None) => Measure::Gas { chain_id },
            (What::Count, chain_id, asset) => Measure::Count { chain_id, asset },
            (What::Amount, ..) => {
                return Err(malformed("chainId, asset: an amount is of an asset"));
            }
            (What::Gas, ..) => {
                return Err(malformed("chainId, asset: gas is paid in a chain's coin"));
            }
        };
        let period = CapPeriod::parse(&self.period)
            .ok_or_else(|| malformed("period: expected payment, hour or day"))?;
        let subject = self.subject(state, setter).await?;
        Ok(CapTerms::new(subject, measure, period).map_err(CapError::from)?)
    }

    /// Whom it names; a merchant that names no merchant means itself.
    async fn subject(&self, state: &State, setter: Setter) -> Result<Subject, ApiError> {
        let key = self.key_id.map(ApiKeyId::from_uuid);
        let payer = self.payer.as_deref().map(|text| address("payer", text)).transpose()?;
        let merchant_id = match (self.merchant_id.map(MerchantId::from_uuid), setter, key) {
            (Some(merchant_id), ..) => Some(merchant_id),
            (None, Setter::Merchant(merchant_id), _) => Some(merchant_id),
            (None, Setter::Operator, Some(key)) => state.caps.key_merchant(key).await?,
            (None, Setter::Operator, None) => None,
        };
        match (self.subject, self.merchant_id, key, payer) {
            (Whom::Merchant, _, None, None) => Ok(Subject::Merchant(merchant_id)),
            (Whom::Key, _, Some(_), None) if merchant_id.is_none() => {
                Err(CapError::NoSuchKey.into())
            }
            (Whom::Key, _, key, None) => Ok(Subject::Key(merchant_id, key)),
            (Whom::Payer, None, None, payer) => Ok(Subject::Payer(payer)),
            (Whom::PayerAtMerchant, _, None, payer) => {
                Ok(Subject::PayerAtMerchant(payer, merchant_id))
            }
            _ => Err(malformed("merchantId, keyId, payer: not all of them name that subject")),
        }
    }
}

impl From<CapError> for ApiError {
    fn from(error: CapError) -> Self {
        match error {
            CapError::Db(error) => error.into(),
            CapError::Invalid(_) => Self::Malformed(error.to_string()),
            CapError::NotYours => Self::Forbidden(error.to_string()),
            CapError::NoSuchMerchant | CapError::NoSuchKey => Self::NotFound(error.to_string()),
        }
    }
}

const fn viewer(principal: &Principal) -> Viewer {
    match principal {
        Principal::Merchant(caller) => Viewer::Merchant(caller.merchant_id),
        Principal::Operator(_) => Viewer::Operator,
    }
}

const fn setter(principal: &Principal) -> Setter {
    match principal {
        Principal::Merchant(caller) => Setter::Merchant(caller.merchant_id),
        Principal::Operator(_) => Setter::Operator,
    }
}

/// A number as amounts are written on the wire.
pub(super) fn amount(field: &str, text: &str) -> Result<U256, ApiError> {
    let parsed = Amount::parse(text).map(Amount::base_units);
    parsed.map_err(|_| malformed(&format!("{field}: expected decimal digits below 2^256")))
}

pub(super) fn address(field: &str, text: &str) -> Result<Address, ApiError> {
    let parsed = text.strip_prefix("0x").and_then(|digits| digits.parse().ok());
    parsed.ok_or_else(|| malformed(&format!("{field}: expected an address, 0x and 40 hex digits")))
}

pub(super) fn chain_id(text: &str) -> Result<ChainId, ApiError> {
    text.parse().map_err(|_| malformed("chainId: expected CAIP-2, such as eip155:8453"))
}

pub(super) fn malformed(problem: &str) -> ApiError {
    ApiError::Malformed(problem.to_owned())
}

fn cap_id(request: &HttpRequest) -> Result<CapId, ApiError> {
    super::id(request, "capId", UNKNOWN).map(CapId::from_uuid)
}

fn unknown() -> ApiError {
    ApiError::NotFound(UNKNOWN.to_owned())
}
