//! What a request passes before its body is read, in this order.

use actix_web::{HttpRequest, web};

use crate::merchants::Caller;

use super::{State, body, caller::authenticate, error::ApiError};

/// Who asks about a payment, and what.
pub(super) async fn admitted(
    request: &HttpRequest,
    state: &State,
    payload: web::Payload,
) -> Result<(Caller, web::Bytes), ApiError> {
    let caller = authenticate(request, state).await?;
    Ok((caller, body::read(request, payload).await?))
}
