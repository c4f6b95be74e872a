//! `/v1/merchants`: who is paid through us. For operators.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{self, ServiceConfig},
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    domain::{Depth, MerchantId},
    http::{
        State, body,
        caller::{actor, operator},
        error::ApiError,
        resource,
    },
    merchants::{
        Asset, Assets, Merchant, MerchantStatus, MerchantsError, Name, NewMerchant, Principal,
        Scope, Why, Wishes,
    },
};

use super::page::{limit, page};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Creation {
    name: String,
    wait_for: Option<String>,
    assets: Option<AssetsText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Change {
    name: Option<String>,
    wait_for: Option<String>,
    assets: Option<AssetsText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    reason: String,
}

/// `"any"`, or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum AssetsText {
    Word(String),
    List(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    after: Option<Uuid>,
    limit: Option<u32>,
}

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    let all = [(Method::GET, web::route().to(list)), (Method::POST, web::route().to(create))];
    let one = [(Method::GET, web::route().to(show)), (Method::PATCH, web::route().to(change))];
    let (suspend, resume, close) =
        (web::route().to(suspend), web::route().to(resume), web::route().to(close));
    config
        .service(resource("/v1/merchants", all))
        .service(resource("/v1/merchants/{merchantId}", one))
        .service(resource("/v1/merchants/{merchantId}/suspend", [(Method::POST, suspend)]))
        .service(resource("/v1/merchants/{merchantId}/resume", [(Method::POST, resume)]))
        .service(resource("/v1/merchants/{merchantId}/close", [(Method::POST, close)]));
}

async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    operator(&request, &state, Scope::Read).await?;
    let query: Query = body::query(&request)?;
    let limit = limit(query.limit)?;
    let merchants = state.merchants.page(query.after.map(MerchantId::from_uuid), limit).await?;
    let shown: Vec<Value> = merchants.iter().map(Merchant::shown).collect();
    Ok(HttpResponse::Ok().json(page("merchants", &shown, "merchantId", limit)))
}

async fn create(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let operator = Principal::Operator(operator(&request, &state, Scope::Manage).await?);
    let asked: Creation = body::json(&request, payload).await?;
    let new = NewMerchant {
        name: name(&asked.name)?,
        wait_for: asked.wait_for.as_deref().map(depth).transpose()?.unwrap_or_default(),
        assets: asked.assets.map(assets).transpose()?.unwrap_or_default(),
    };
    let actor = actor(&request, &state, &operator);
    let created = state.merchants.create(&actor, &new).await?;
    Ok(HttpResponse::Created().json(created.shown()))
}

async fn show(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    operator(&request, &state, Scope::Read).await?;
    let found = state.merchants.find(merchant_id(&request)?).await?;
    Ok(HttpResponse::Ok().json(found.shown()))
}

async fn change(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let operator = Principal::Operator(operator(&request, &state, Scope::Manage).await?);
    let asked: Change = body::json(&request, payload).await?;
    let wishes = Wishes {
        name: asked.name.as_deref().map(name).transpose()?,
        wait_for: asked.wait_for.as_deref().map(depth).transpose()?,
        assets: asked.assets.map(assets).transpose()?,
    };
    if wishes == Wishes::default() {
        let problem = "expected at least one of name, waitFor and assets";
        return Err(ApiError::Malformed(problem.to_owned()));
    }
    let actor = actor(&request, &state, &operator);
    let changed = state.merchants.change(&actor, merchant_id(&request)?, &wishes).await?;
    Ok(HttpResponse::Ok().json(changed.shown()))
}

async fn suspend(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    move_to(&request, &state, payload, MerchantStatus::Suspended).await
}

async fn resume(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    move_to(&request, &state, payload, MerchantStatus::Active).await
}

async fn close(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    move_to(&request, &state, payload, MerchantStatus::Closed).await
}

async fn move_to(
    request: &HttpRequest,
    state: &State,
    payload: web::Payload,
    status: MerchantStatus,
) -> Result<HttpResponse, ApiError> {
    let operator = Principal::Operator(operator(request, state, Scope::Manage).await?);
    let asked: Move = body::json(request, payload).await?;
    let why = Why::parse(&asked.reason).map_err(|error| malformed("reason", &error))?;
    let actor = actor(request, state, &operator);
    let moved = state.merchants.move_to(&actor, merchant_id(request)?, status, &why).await?;
    Ok(HttpResponse::Ok().json(moved.shown()))
}

impl From<MerchantsError> for ApiError {
    fn from(error: MerchantsError) -> Self {
        match error {
            MerchantsError::Db(error) => error.into(),
            MerchantsError::Unknown => Self::NotFound(error.to_string()),
            MerchantsError::NameTaken | MerchantsError::Closed => Self::Conflict(error.to_string()),
        }
    }
}

pub(super) fn merchant_id(request: &HttpRequest) -> Result<MerchantId, ApiError> {
    super::id(request, "merchantId", "there is no such merchant").map(MerchantId::from_uuid)
}

fn name(text: &str) -> Result<Name, ApiError> {
    Name::parse(text).map_err(|error| malformed("name", &error))
}

fn depth(text: &str) -> Result<Depth, ApiError> {
    Depth::parse(text).map_err(|error| malformed("waitFor", &error))
}

/// An empty list would mean any asset, which is hardly what somebody means who writes it.
fn assets(text: AssetsText) -> Result<Assets, ApiError> {
    match text {
        AssetsText::Word(word) if word == "any" => Ok(Assets::ANY),
        AssetsText::List(list) if !list.is_empty() => {
            let parsed = list.iter().map(|text| text.parse::<Asset>()).collect::<Result<_, _>>();
            parsed.and_then(Assets::of).map_err(|error| malformed("assets", &error))
        }
        AssetsText::Word(_) | AssetsText::List(_) => {
            Err(ApiError::Malformed("assets: expected \"any\" or a list of assets".to_owned()))
        }
    }
}

fn malformed(field: &str, error: &impl std::fmt::Display) -> ApiError {
    ApiError::Malformed(format!("{field}: {error}"))
}
