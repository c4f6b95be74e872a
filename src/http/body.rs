//! The request body: JSON, within its limits of size and time.

use actix_web::{HttpRequest, http::header::CONTENT_ENCODING, web};

use super::{BODY_TIMEOUT, MAX_BODY_BYTES, error::ApiError};

/// Reads the whole body.
pub(super) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<web::Bytes, ApiError> {
    if !is_json(request) || request.headers().contains_key(CONTENT_ENCODING) {
        return Err(ApiError::WrongContentType);
    }
    let arrived =
        tokio::time::timeout(BODY_TIMEOUT, payload.to_bytes_limited(MAX_BODY_BYTES)).await;
    match arrived {
        Err(_) => Err(ApiError::TooSlow),
        Ok(Err(_)) => Err(ApiError::TooLarge),
        Ok(Ok(Err(error))) => Err(ApiError::Malformed(format!("the body is broken: {error}"))),
        Ok(Ok(Ok(bytes))) => Ok(bytes),
    }
}

fn is_json(request: &HttpRequest) -> bool {
    use actix_web::HttpMessage as _;
    let content_type = request.content_type();
    content_type.eq_ignore_ascii_case("application/json")
        || content_type.to_ascii_lowercase().ends_with("+json")
}
