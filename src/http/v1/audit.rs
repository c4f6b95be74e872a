//! `/v1/audit`: who changed what.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    audit::{Filter, Record},
    domain::MerchantId,
    http::{State, body, caller::operator, error::ApiError},
    merchants::Scope,
};

use super::page::{limit, page};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Query {
    merchant_id: Option<Uuid>,
    subject: Option<String>,
    after: Option<i64>,
    limit: Option<u32>,
}

pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    operator(&request, &state, Scope::Read).await?;
    let query: Query = body::query(&request)?;
    let limit = limit(query.limit)?;
    let filter = Filter {
        merchant_id: query.merchant_id.map(MerchantId::from_uuid),
        subject: query.subject,
    };
    let records = state.records.page(&filter, query.after, limit).await?;
    let shown: Vec<Value> = records.iter().map(Record::shown).collect();
    Ok(HttpResponse::Ok().json(page("records", &shown, "auditId", limit)))
}
