//! Who asks, by `Authorization: Bearer` or `X-API-Key`, and whether it may.
//!
//! A key opens nothing that its scopes do not name. A suspended merchant may read; a closed one may
//! nothing.

use actix_web::{HttpRequest, http::header::AUTHORIZATION};

use crate::{
    audit::Actor,
    domain::{Depth, IdempotencyKey, RateClass},
    merchants::{Caller, Denied, MerchantStatus, Operator, Principal, Scope, Scopes},
};

use super::{State, address::ClientAddress, admission::within_limits, error::ApiError};

const API_KEY_HEADER: &str = "X-API-Key";
/// How deep the evidence must stand before success is told.
const WAIT_FOR_HEADER: &str = "Quittance-Wait-For";
const IDEMPOTENCY_KEY_HEADER: &str = "Idempotency-Key";
const NO_KEY: &str = "an API key is required: `Authorization: Bearer qk_…` or `X-API-Key: qk_…`";

/// The merchant whose key the request carries, if the key and the merchant may do this.
pub(super) async fn merchant(
    request: &HttpRequest,
    state: &State,
    scope: Scope,
) -> Result<Caller, ApiError> {
    match principal(request, state, scope).await? {
        Principal::Merchant(caller) => Ok(caller),
        Principal::Operator(_) => Err(ApiError::Forbidden(
            "this takes a merchant's key, and the key is an operator's".to_owned(),
        )),
    }
}

/// The operator whose key the request carries, if the key may do this.
pub(super) async fn operator(
    request: &HttpRequest,
    state: &State,
    scope: Scope,
) -> Result<Operator, ApiError> {
    match counted(request, state, class_of(scope)).await? {
        Principal::Operator(operator) => {
            check_scope(operator.scopes, scope)?;
            Ok(operator)
        }
        Principal::Merchant(_) => Err(ApiError::Forbidden(
            "this takes an operator's key, and the key is a merchant's".to_owned(),
        )),
    }
}

/// Whoever's key the request carries, if the key and its merchant may do this.
pub(super) async fn principal(
    request: &HttpRequest,
    state: &State,
    scope: Scope,
) -> Result<Principal, ApiError> {
    let principal = counted(request, state, class_of(scope)).await?;
    if let Principal::Merchant(caller) = &principal
        && caller.status == MerchantStatus::Suspended
        && scope != Scope::Read
    {
        return Err(ApiError::suspended());
    }
    // An operator's key has neither of the scopes that payments take; that is not what is wrong with it.
    if matches!(principal, Principal::Merchant(_)) || matches!(scope, Scope::Read | Scope::Manage) {
        check_scope(principal.scopes(), scope)?;
    }
    Ok(principal)
}

/// Whoever's key the request carries, whatever it may be used for.
pub(super) async fn anybody(request: &HttpRequest, state: &State) -> Result<Principal, ApiError> {
    counted(request, state, RateClass::Read).await
}

/// Whoever's key the request carries, if there is room for another request of its merchant.
async fn counted(
    request: &HttpRequest,
    state: &State,
    class: RateClass,
) -> Result<Principal, ApiError> {
    let principal = authenticated(request, state).await?;
    within_limits(request, state, &principal, class).await?;
    Ok(principal)
}

/// The rate that what needs this scope is counted in.
const fn class_of(scope: Scope) -> RateClass {
    match scope {
        Scope::Verify => RateClass::Verify,
        Scope::Settle => RateClass::Settle,
        Scope::Read | Scope::Manage => RateClass::Read,
    }
}

async fn authenticated(request: &HttpRequest, state: &State) -> Result<Principal, ApiError> {
    let presented = presented_key(request).ok_or(ApiError::Unauthorized(NO_KEY.to_owned()))?;
    let network = ClientAddress::of(request, state.n_trusted_proxies).network();
    let authenticated = state.gate.authenticate(presented, network, (state.clock)()).await;
    match authenticated {
        Ok(Principal::Merchant(caller)) if caller.status == MerchantStatus::Closed => {
            Err(ApiError::suspended())
        }
        Ok(principal) => Ok(principal),
        Err(denied) => Err(denied.into()),
    }
}

/// Who changes something, for the audit.
pub(super) fn actor(request: &HttpRequest, state: &State, principal: &Principal) -> Actor {
    let origin = ClientAddress::of(request, state.n_trusted_proxies).to_string();
    match principal {
        Principal::Merchant(caller) => Actor::merchant(caller.api_key_id, &origin),
        Principal::Operator(operator) => Actor::operator(operator.api_key_id, &origin),
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Misspelled | Denied::Unknown => Self::Unauthorized(denied.to_string()),
            Denied::TooManyAttempts { retry_after } => {
                Self::RateLimited { problem: denied.to_string(), retry_after }
            }
            Denied::Db(error) => Self::Facilitator(error.into()),
        }
    }
}

fn check_scope(scopes: Scopes, scope: Scope) -> Result<(), ApiError> {
    if scopes.allow(scope) {
        return Ok(());
    }
    Err(ApiError::Forbidden(format!("the key lacks the scope `{}`", scope.as_str())))
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
