//! `POST /settle`.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::{
    domain::{Depth, IdempotencyKey, PaymentRequest},
    facilitator::SettleOutcome,
    merchants::{Caller, Scope},
    protocol::{Code, ParseError, SettleAnswer, network_name, parse_request},
};

use super::{
    Shape, State,
    admission::admitted,
    caller::{idempotency_key, wait_for},
    error::ApiError,
};

/// Marks an answer that was given before, to the same caller.
const REPLAYED_HEADER: (&str, &str) = ("Idempotent-Replayed", "true");

pub(super) async fn settle(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> HttpResponse {
    let admitted = admitted(&request, &state, Scope::Settle, payload).await;
    let asked = admitted.and_then(|(caller, bytes)| {
        let (key, wait_for) = (idempotency_key(&request)?, wait_for(&request, &caller)?);
        Ok((caller, bytes, key, wait_for))
    });
    let (caller, bytes, key, wait_for) = match asked {
        Ok(admitted) => admitted,
        Err(error) => return error.answer(Shape::Settle, "", None),
    };
    match parse_request(&bytes) {
        Ok(payment) => settled(&state, &caller, &payment, key.as_ref(), wait_for).await,
        Err(ParseError::Malformed(problem)) => {
            ApiError::Malformed(problem).answer(Shape::Settle, "", None)
        }
        Err(ParseError::Refused(unparsed)) => {
            count(unparsed.refusal.reason.as_str());
            let (reason, message) = (unparsed.refusal.reason, unparsed.refusal.message);
            HttpResponse::Ok().json(SettleAnswer::unpaid(
                reason,
                message,
                None,
                unparsed.network,
                unparsed.payer,
            ))
        }
    }
}

async fn settled(
    state: &State,
    caller: &Caller,
    payment: &PaymentRequest,
    key: Option<&IdempotencyKey>,
    wait_for: Depth,
) -> HttpResponse {
    let payer = payment.payment.authorization.payer;
    let network = network_name(payment.version, payment.requirements.chain_id).unwrap_or_default();
    let now = (state.clock)();
    let outcome = match state.facilitator.settle(caller, payment, key, wait_for, now).await {
        Ok(outcome) => outcome,
        Err(error) => return ApiError::from(error).answer(Shape::Settle, &network, Some(payer)),
    };
    let mut response = HttpResponse::Ok();
    if is_replay(&outcome) {
        response.insert_header(REPLAYED_HEADER);
    }
    let answer = match outcome {
        SettleOutcome::Paid { transaction_hash, .. } => {
            count("paid");
            SettleAnswer::paid(transaction_hash, network, payer)
        }
        SettleOutcome::Failed { refusal, transaction_hash, .. } => {
            count(refusal.reason.as_str());
            let (reason, message) = (refusal.reason, refusal.message);
            SettleAnswer::unpaid(reason, message, transaction_hash, network, Some(payer))
        }
        SettleOutcome::Refused(refusal) => {
            count(refusal.reason.as_str());
            SettleAnswer::unpaid(refusal.reason, refusal.message, None, network, Some(payer))
        }
        SettleOutcome::Duplicate { transaction_hash } => {
            count(Code::DuplicateSettlement.as_str());
            SettleAnswer::unpaid(
                Code::DuplicateSettlement,
                "this payment belongs to another request",
                transaction_hash,
                network,
                Some(payer),
            )
        }
        SettleOutcome::Pending { transaction_hash } => {
            count(Code::SettlementPending.as_str());
            SettleAnswer::unpaid(
                Code::SettlementPending,
                "sent, and no block has told the outcome yet; repeat the same request",
                Some(transaction_hash),
                network,
                Some(payer),
            )
        }
    };
    response.json(answer)
}

const fn is_replay(outcome: &SettleOutcome) -> bool {
    matches!(
        outcome,
        SettleOutcome::Paid { is_replay: true, .. } | SettleOutcome::Failed { is_replay: true, .. }
    )
}

fn count(outcome: &'static str) {
    metrics::counter!("quittance_settle_total", "outcome" => outcome).increment(1);
}
