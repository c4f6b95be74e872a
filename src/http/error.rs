//! Every answer that is not a verdict: its status, its public sentence, and its shape.

use std::time::Duration;

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        Method, StatusCode,
        header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use alloy::primitives::Address;
use serde_json::json;

use crate::{
    db::DbError,
    facilitator::FacilitatorError,
    limits::TooMuch,
    protocol::{Code, SettleAnswer, VerifyAnswer},
    telemetry::causes,
};

use super::{BODY_TIMEOUT, MAX_BODY_BYTES, Shape};

/// When a caller should come back after trouble of ours: about a block later.
const RETRY_AFTER_TROUBLE: Duration = Duration::from_secs(2);

/// What keeps a request from being answered with a verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No key, or one that nobody holds.
    #[error("{0}")]
    Unauthorized(String),
    /// A valid key that may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// A valid key of a merchant that the operator has stopped.
    #[error("{0}")]
    Suspended(String),
    /// Too much at a time, of one merchant or from one address.
    #[error("{problem}")]
    RateLimited {
        /// What is too much, and what the limit is.
        problem: String,
        /// When there is room again.
        retry_after: Duration,
    },
    /// There is no such thing, or it is somebody else's.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Conflict(String),
    /// Not JSON, or a header that cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// Not `application/json`, or compressed.
    #[error(
        "the body must be sent with Content-Type: application/json and without Content-Encoding"
    )]
    WrongContentType,
    /// Longer than allowed.
    #[error("the body is longer than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// The body did not arrive.
    #[error("the body did not arrive within {} seconds", BODY_TIMEOUT.as_secs())]
    TooSlow,
    /// The use case could not be carried out.
    #[error(transparent)]
    Facilitator(#[from] FacilitatorError),
}

/// To be read by merchants, and by buyers whom they pass it to.
const SUSPENDED: &str = "the operator of the facilitator has suspended or closed this merchant; nothing \
                         is known against the payment or its payer";

impl ApiError {
    /// The merchant may not do this now.
    pub(super) fn suspended() -> Self {
        Self::Suspended(SUSPENDED.to_owned())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) | Self::Facilitator(FacilitatorError::KeyGone) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden(_)
            | Self::Suspended(_)
            | Self::Facilitator(
                FacilitatorError::WrongMode { .. } | FacilitatorError::MerchantStopped,
            ) => StatusCode::FORBIDDEN,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::WrongContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) | Self::Facilitator(FacilitatorError::IdempotencyKeyReused) => {
                StatusCode::CONFLICT
            }
            Self::Facilitator(
                FacilitatorError::Chain(_)
                | FacilitatorError::Db(_)
                | FacilitatorError::Busy
                | FacilitatorError::BooksBehind
                | FacilitatorError::SanctionsStale
                | FacilitatorError::NotSentYet,
            ) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(&self, shape: Shape) -> Code {
        match self {
            Self::Unauthorized(_) | Self::Facilitator(FacilitatorError::KeyGone) => {
                Code::Unauthorized
            }
            Self::Forbidden(_) | Self::Facilitator(FacilitatorError::WrongMode { .. }) => {
                Code::Forbidden
            }
            Self::Suspended(_) | Self::Facilitator(FacilitatorError::MerchantStopped) => {
                Code::MerchantSuspended
            }
            Self::RateLimited { .. } => Code::RateLimitExceeded,
            Self::NotFound(_) => Code::NotFound,
            Self::Conflict(_) => Code::Conflict,
            Self::Malformed(_) | Self::WrongContentType | Self::TooLarge | Self::TooSlow => {
                Code::InvalidRequest
            }
            Self::Facilitator(FacilitatorError::IdempotencyKeyReused) => Code::IdempotencyError,
            Self::Facilitator(
                FacilitatorError::Chain(_)
                | FacilitatorError::Db(_)
                | FacilitatorError::Busy
                | FacilitatorError::BooksBehind
                | FacilitatorError::SanctionsStale
                | FacilitatorError::NotSentYet,
            ) => match shape {
                Shape::Verify => Code::UnexpectedVerifyError,
                Shape::Settle => Code::UnexpectedSettleError,
                Shape::Api => Code::ServiceUnavailable,
            },
        }
    }

    /// What the caller may read. Causes that name our endpoints or tables stay in the log.
    fn public_sentence(&self, shape: Shape) -> String {
        match self {
            Self::Facilitator(FacilitatorError::Chain(error)) => {
                format!(
                    "{} could not be read; nothing is known against the payment",
                    error.chain_id
                )
            }
            Self::Facilitator(FacilitatorError::Db(_)) => {
                "the books could not be reached; nothing is known against the payment".to_owned()
            }
            Self::RateLimited { problem, .. } if shape != Shape::Api => {
                format!("{problem}; nothing is known against the payment")
            }
            Self::Facilitator(FacilitatorError::MerchantStopped) => SUSPENDED.to_owned(),
            other => other.to_string(),
        }
    }

    /// The answer, in the shape of the route, with what is known of the payment.
    pub(super) fn answer(
        &self,
        shape: Shape,
        network: &str,
        payer: Option<Address>,
    ) -> HttpResponse {
        let status = self.status();
        if status.is_server_error() {
            tracing::warn!(error = causes(self), "a request could not be answered");
        }
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, RETRY_AFTER_TROUBLE.as_secs().to_string()));
        }
        if let Self::RateLimited { retry_after, .. } = self {
            response.insert_header((RETRY_AFTER, whole_seconds(*retry_after).to_string()));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        let (code, sentence) = (self.code(shape), self.public_sentence(shape));
        match shape {
            Shape::Verify => response.json(VerifyAnswer::invalid(code, sentence, payer)),
            Shape::Settle => {
                response.json(SettleAnswer::unpaid(code, sentence, None, network, payer))
            }
            Shape::Api => response.json(json!({ "error": code.as_str(), "message": sentence })),
        }
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        Self::Facilitator(error.into())
    }
}

/// Handlers of `/v1` return it as it is.
impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        self.answer(Shape::Api, "", None)
    }
}

impl From<TooMuch> for ApiError {
    fn from(too_much: TooMuch) -> Self {
        Self::RateLimited { problem: too_much.to_string(), retry_after: too_much.wait() }
    }
}

/// Whole seconds (RFC 9110 section 10.2.3), never before there is room, and never at once.
pub(super) const fn whole_seconds(wait: Duration) -> u64 {
    let begun = if wait.subsec_nanos() > 0 { 1 } else { 0 };
    let seconds = wait.as_secs().saturating_add(begun);
    if seconds == 0 { 1 } else { seconds }
}

/// 405, naming the methods that work.
pub(super) fn wrong_method(shape: Shape, allowed: &[Method]) -> HttpResponse {
    let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let sentence = format!("this path answers {allowed} only");
    let mut response = HttpResponse::MethodNotAllowed();
    response.insert_header((ALLOW, allowed));
    match shape {
        Shape::Verify => response.json(VerifyAnswer::invalid(Code::InvalidRequest, sentence, None)),
        Shape::Settle => {
            response.json(SettleAnswer::unpaid(Code::InvalidRequest, sentence, None, "", None))
        }
        Shape::Api => {
            let code = Code::InvalidRequest.as_str();
            response.json(json!({ "error": code, "message": sentence }))
        }
    }
}

/// 404 for paths that do not exist.
pub(super) fn not_found() -> HttpResponse {
    HttpResponse::NotFound().json(json!({
        "error": Code::NotFound.as_str(),
        "message": "there is nothing here; GET /openapi.yaml of the service describes what there is",
    }))
}
