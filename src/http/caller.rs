//! Who asks, by `Authorization: Bearer` or `X-API-Key`.

use actix_web::{HttpRequest, http::header::AUTHORIZATION};

use crate::{
    domain::{Depth, IdempotencyKey},
    merchants::{Caller, Principal},
};

use super::{State, error::ApiError};

const API_KEY_HEADER: &str = "X-API-Key";
/// How deep the evidence must stand before success is told.
const WAIT_FOR_HEADER: &str = "Quittance-Wait-For";
const IDEMPOTENCY_KEY_HEADER: &str = "Idempotency-Key";

/// The merchant whose key the request carries.
pub(super) async fn authenticate(request: &HttpRequest, state: &State) -> Result<Caller, ApiError> {
    let presented = presented_key(request).ok_or(ApiError::Unauthorized)?;
    let principal = state
        .merchants
        .authenticate(presented)
        .await
        .map_err(|error| ApiError::Facilitator(error.into()))?;
    match principal {
        Some(Principal::Merchant(caller)) => Ok(caller),
        Some(Principal::Operator) => Err(ApiError::Forbidden(
            "an operator's key does not verify or settle payments".to_owned(),
        )),
        None => Err(ApiError::Unauthorized),
    }
}

fn presented_key(request: &HttpRequest) -> Option<&str> {
    let headers = request.headers();
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    bearer.or_else(|| headers.get(API_KEY_HEADER)?.to_str().ok())
}

/// Which of its own requests the resource server serves with this payment.
pub(super) fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = request.headers().get(IDEMPOTENCY_KEY_HEADER) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let key =
        IdempotencyKey::parse(text).map_err(|error| ApiError::Malformed(error.to_string()))?;
    Ok(Some(key))
}

/// How deep the payment must stand: as the request says, or as its merchant wishes.
pub(super) fn wait_for(request: &HttpRequest, caller: &Caller) -> Result<Depth, ApiError> {
    let Some(value) = request.headers().get(WAIT_FOR_HEADER) else { return Ok(caller.wait_for) };
    Depth::parse(value.to_str().unwrap_or_default())
        .map_err(|error| ApiError::Malformed(format!("{WAIT_FOR_HEADER}: {error}")))
}
