//! `/v1/payees`: where a merchant may be paid. A merchant proves an address; an operator vouches for it.

use actix_web::{HttpRequest, HttpResponse, http::Method, web};
use alloy::primitives::{Address, Bytes};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    domain::{ChainId, MerchantId},
    http::{
        State, body,
        caller::{actor, principal},
        error::ApiError,
        resource,
    },
    merchants::{Payee, PayeeProof, PayeesError, Principal, Scope},
};

use super::onboarding::{network, proven};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Query {
    merchant_id: Option<Uuid>,
}

/// What a merchant sends, and what an operator does.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    message: String,
    signature: Bytes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Voucher {
    merchant_id: Uuid,
    network: String,
    address: Address,
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource(
            "/v1/payees",
            [(Method::GET, web::route().to(list)), (Method::POST, web::route().to(add))],
        ))
        .service(resource(
            "/v1/payees/{network}/{address}",
            [(Method::DELETE, web::route().to(remove))],
        ));
}

async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Read).await?;
    let query: Query = body::query(&request)?;
    let payees = state.payees.of(merchant(&principal, query.merchant_id)?).await?;
    Ok(HttpResponse::Ok().json(shown(&payees)))
}

async fn add(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let actor = actor(&request, &state, &principal);
    let payees = match &principal {
        Principal::Merchant(caller) => {
            let Proof { message, signature } = body::json(&request, payload).await?;
            let proven = proven(&state, &message, signature).await?;
            let (sign_in, signature) = (&proven.sign_in, &proven.signature);
            let at = (sign_in.chain_id(), sign_in.address());
            let proof = PayeeProof::SignIn { sign_in, signature };
            state.payees.add(&actor, caller.merchant_id, at, &proof).await?
        }
        Principal::Operator(_) => {
            let voucher: Voucher = body::json(&request, payload).await?;
            let merchant = state.merchants.find(MerchantId::from_uuid(voucher.merchant_id)).await?;
            let at = (network(&voucher.network)?, voucher.address);
            state.payees.add(&actor, merchant.merchant_id, at, &PayeeProof::Operator).await?
        }
    };
    Ok(HttpResponse::Created().json(shown(&payees)))
}

async fn remove(
    request: HttpRequest,
    state: web::Data<State>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let query: Query = body::query(&request)?;
    let merchant_id = merchant(&principal, query.merchant_id)?;
    let at = place(&path)?;
    let actor = actor(&request, &state, &principal);
    let payees = state.payees.remove(&actor, merchant_id, at).await?;
    Ok(HttpResponse::Ok().json(shown(&payees)))
}

/// Whose payees are meant: a merchant's own, or those of whom an operator names.
fn merchant(principal: &Principal, named: Option<Uuid>) -> Result<MerchantId, ApiError> {
    match (principal, named.map(MerchantId::from_uuid)) {
        (Principal::Merchant(caller), None) => Ok(caller.merchant_id),
        (Principal::Merchant(caller), Some(named)) if named == caller.merchant_id => Ok(named),
        (Principal::Merchant(_), Some(_)) => {
            Err(ApiError::NotFound("there is no such merchant".to_owned()))
        }
        (Principal::Operator(_), Some(named)) => Ok(named),
        (Principal::Operator(_), None) => {
            Err(ApiError::Malformed("merchantId: expected a merchant's id".to_owned()))
        }
    }
}

fn place((chain, address): &(String, String)) -> Result<(ChainId, Address), ApiError> {
    let address = address.strip_prefix("0x").and_then(|digits| digits.parse().ok());
    let address = address.ok_or_else(|| ApiError::from(PayeesError::Unknown))?;
    Ok((network(chain)?, address))
}

fn shown(payees: &[Payee]) -> Value {
    json!({ "payees": payees.iter().map(Payee::shown).collect::<Vec<_>>() })
}

impl From<PayeesError> for ApiError {
    fn from(error: PayeesError) -> Self {
        match error {
            PayeesError::Db(error) => error.into(),
            PayeesError::Unknown => Self::NotFound(error.to_string()),
            PayeesError::Used | PayeesError::TooMany | PayeesError::Last => {
                Self::Conflict(error.to_string())
            }
        }
    }
}
