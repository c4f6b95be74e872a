//! What a request passes before its body is read, in this order: its address, its key, its merchant's
//! rate, its merchant's seat, the key's scope.

use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};

use crate::{
    domain::RateClass,
    merchants::{Caller, Principal, Scope},
};

use super::{Shape, State, address::ClientAddress, body, caller::merchant, error::ApiError};

/// Turns away an address that asks too often, before anything else is done for it.
pub(super) async fn of_address(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let state = request.app_data::<web::Data<State>>().expect("every application has a state");
    let address = ClientAddress::of(request.request(), state.n_trusted_proxies);
    match state.rates.admit_address(address.network()) {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        Err(too_much) => {
            // No route is found yet.
            let shape = match request.path() {
                "/verify" => Shape::Verify,
                "/settle" => Shape::Settle,
                _ => Shape::Api,
            };
            let answer = ApiError::from(too_much).answer(shape, "", None);
            Ok(request.into_response(answer))
        }
    }
}

/// Who asks about a payment, and what.
pub(super) async fn admitted(
    request: &HttpRequest,
    state: &State,
    scope: Scope,
    payload: web::Payload,
) -> Result<(Caller, web::Bytes), ApiError> {
    let caller = merchant(request, state, scope).await?;
    Ok((caller, body::read(request, payload).await?))
}

/// Counts a request, if a merchant sent it. What is left goes into the headers of its answer, and its
/// seat is kept until that is sent. Called once, as soon as it is known who asks.
pub(super) async fn within_limits(
    request: &HttpRequest,
    state: &State,
    principal: &Principal,
    class: RateClass,
) -> Result<(), ApiError> {
    let Principal::Merchant(caller) = principal else { return Ok(()) };
    let (allowance, seat) = state.rates.admit(caller.merchant_id, &caller.rates, class).await;
    let mut kept = request.extensions_mut();
    kept.insert(allowance);
    kept.insert(seat?);
    Ok(())
}
