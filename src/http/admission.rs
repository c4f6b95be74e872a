//! What a request passes before its body is read, in this order: its address, its key, its merchant's
//! rate, its merchant's seat, the key's scope.

use std::time::Duration;

use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};

use crate::{
    domain::RateClass,
    limits::TooMuch,
    merchants::{Caller, Principal, Scope},
};

use super::{Shape, State, address::ClientAddress, body, caller::merchant, error::ApiError};

/// How long a refusal is kept back. Whoever asks again at once, by however many connections, is refused ten
/// times a second by each: otherwise refusing would take the time of all others.
const REFUSAL_DELAY: Duration = Duration::from_millis(100);

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
            let answer = refused(too_much).await.answer(shape, "", None);
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
    request.extensions_mut().insert(allowance);
    match seat {
        Ok(seat) => {
            request.extensions_mut().insert(seat);
            Ok(())
        }
        Err(too_much) => Err(refused(too_much).await),
    }
}

async fn refused(too_much: TooMuch) -> ApiError {
    tokio::time::sleep(REFUSAL_DELAY).await;
    too_much.into()
}
