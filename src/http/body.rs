//! The request body: JSON, within its limits of size and time.

use actix_web::{HttpRequest, http::header::CONTENT_ENCODING, web};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use super::{BODY_TIMEOUT, MAX_BODY_BYTES, error::ApiError};

/// Reads the whole body.
pub(super) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<web::Bytes, ApiError> {
    if !is_json(request) || request.headers().contains_key(CONTENT_ENCODING) {
        return Err(ApiError::WrongContentType);
    }
    let arrived = tokio::time::timeout(BODY_TIMEOUT, whole(payload)).await;
    arrived.unwrap_or(Err(ApiError::TooSlow))
}

/// Reads the whole body as one of the things that `/v1` takes. What it does not know is refused by name.
pub(super) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, ApiError> {
    let bytes = read(request, payload).await?;
    serde_json::from_slice(&bytes).map_err(|error| ApiError::Malformed(error.to_string()))
}

/// Reads the query of the URL, in the same manner.
pub(super) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, ApiError> {
    let query = web::Query::<T>::from_query(request.query_string());
    query.map(web::Query::into_inner).map_err(|error| ApiError::Malformed(error.to_string()))
}

/// A body that arrives in one piece, as almost all do, is not copied.
async fn whole(mut payload: web::Payload) -> Result<web::Bytes, ApiError> {
    let first = chunk(&mut payload, 0).await?;
    let mut body = web::BytesMut::new();
    let mut next = chunk(&mut payload, first.len()).await?;
    if next.is_empty() {
        return Ok(first);
    }
    body.extend_from_slice(&first);
    while !next.is_empty() {
        body.extend_from_slice(&next);
        next = chunk(&mut payload, body.len()).await?;
    }
    Ok(body.freeze())
}

/// The next bytes of a body of which `n_bytes` have arrived; none at its end.
async fn chunk(payload: &mut web::Payload, n_bytes: usize) -> Result<web::Bytes, ApiError> {
    let Some(arrived) = payload.next().await else { return Ok(web::Bytes::new()) };
    let chunk =
        arrived.map_err(|error| ApiError::Malformed(format!("the body is broken: {error}")))?;
    if n_bytes.saturating_add(chunk.len()) > MAX_BODY_BYTES {
        return Err(ApiError::TooLarge);
    }
    Ok(chunk)
}

fn is_json(request: &HttpRequest) -> bool {
    use actix_web::HttpMessage as _;
    let content_type = request.content_type();
    content_type.eq_ignore_ascii_case("application/json")
        || content_type.to_ascii_lowercase().ends_with("+json")
}
