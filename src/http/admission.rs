//! What a request passes before its body is read, in this order.

use actix_web::{HttpRequest, web};

use crate::merchants::{Caller, Scope};

use super::{State, body, caller::merchant, error::ApiError};

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
