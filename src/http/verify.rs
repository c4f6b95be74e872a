//! `POST /verify`.

use std::sync::LazyLock;

use actix_web::{HttpRequest, HttpResponse, web};
use alloy::primitives::Address;
use metrics::Counter;

use crate::{
    domain::{PaymentRequest, Refusal},
    merchants::{Caller, Scope},
    protocol::{ParseError, VerifyAnswer, parse_request},
};

use super::{Shape, State, admission::admitted, error::ApiError};

/// Looked up once: most answers are this one.
static N_VALID: LazyLock<Counter> =
    LazyLock::new(|| metrics::counter!("quittance_verify_total", "reason" => "valid"));

pub(super) async fn verify(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> HttpResponse {
    let (caller, bytes) = match admitted(&request, &state, Scope::Verify, payload).await {
        Ok(admitted) => admitted,
        Err(error) => return error.answer(Shape::Verify, "", None),
    };
    match parse_request(&bytes) {
        Ok(payment) => judged(&state, &caller, &payment).await,
        Err(ParseError::Malformed(problem)) => {
            ApiError::Malformed(problem).answer(Shape::Verify, "", None)
        }
        Err(ParseError::Refused(unparsed)) => refused(unparsed.refusal, unparsed.payer),
    }
}

async fn judged(state: &State, caller: &Caller, payment: &PaymentRequest) -> HttpResponse {
    let payer = payment.payment.authorization.payer;
    match state.facilitator.verify(caller, payment, (state.clock)()).await {
        Ok(Ok(_)) => {
            N_VALID.increment(1);
            HttpResponse::Ok().json(VerifyAnswer::valid(payer))
        }
        Ok(Err(refusal)) => refused(refusal, Some(payer)),
        Err(error) => ApiError::from(error).answer(Shape::Verify, "", Some(payer)),
    }
}

fn refused(refusal: Refusal, payer: Option<Address>) -> HttpResponse {
    metrics::counter!("quittance_verify_total", "reason" => refusal.reason.as_str()).increment(1);
    HttpResponse::Ok().json(VerifyAnswer::invalid(refusal.reason, refusal.message, payer))
}
