//! `/v1/keys`: a merchant's own keys, and for operators those of everybody.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web::{self, ServiceConfig},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    domain::{ApiKeyId, KeyMode, MerchantId},
    http::{
        State, body,
        caller::{actor, principal},
        error::ApiError,
        resource,
    },
    merchants::{
        ApiKey, Authority, KeyOwner, KeyRecord, KeysError, Name, NewKey, Principal, Scope, Scopes,
    },
};

use super::page::{limit, page};

/// The longest life of a key that ends: ten years.
const LIFETIME_SECONDS_MAX: i64 = 315_360_000;
/// How long a replaced key goes on if nothing else is asked.
const OVERLAP_SECONDS: i64 = 86_400;
/// How long at most: thirty days.
const OVERLAP_SECONDS_MAX: i64 = 2_592_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Query {
    merchant_id: Option<Uuid>,
    after: Option<Uuid>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Creation {
    merchant_id: Option<Uuid>,
    mode: Option<Mode>,
    scopes: Option<Vec<String>>,
    name: Option<String>,
    expires_in_seconds: Option<i64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Live,
    Test,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rotation {
    overlap_seconds: Option<i64>,
}

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    let keys = [(Method::GET, web::route().to(list)), (Method::POST, web::route().to(create))];
    config
        .service(resource("/v1/keys", keys))
        .service(resource("/v1/keys/{keyId}", [(Method::DELETE, web::route().to(revoke))]))
        .service(resource("/v1/keys/{keyId}/rotate", [(Method::POST, web::route().to(rotate))]));
}

async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let query: Query = body::query(&request)?;
    let limit = limit(query.limit)?;
    let owner = match owner(&principal, query.merchant_id)? {
        Some(merchant_id) => KeyOwner::Merchant(merchant_id),
        None => KeyOwner::Operator,
    };
    let keys = state.keys.page(owner, query.after.map(ApiKeyId::from_uuid), limit).await?;
    let shown: Vec<Value> = keys.iter().map(KeyRecord::shown).collect();
    Ok(HttpResponse::Ok().json(page("keys", &shown, "keyId", limit)))
}

async fn create(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let asked: Creation = body::json(&request, payload).await?;
    // Operators' keys are made at the command line, where somebody can be seen.
    let merchant_id = owner(&principal, asked.merchant_id)?
        .ok_or_else(|| ApiError::Malformed("merchantId: expected a merchant's id".to_owned()))?;
    let own = match &principal {
        Principal::Merchant(caller) => Some(caller.mode),
        Principal::Operator(_) => None,
    };
    let mode = match (asked.mode, own) {
        (Some(Mode::Live), _) => KeyMode::Live,
        (Some(Mode::Test), _) => KeyMode::Test,
        (None, Some(own)) => own,
        (None, None) => {
            return Err(ApiError::Malformed("mode: expected live or test".to_owned()));
        }
    };
    let new = NewKey {
        owner: KeyOwner::Merchant(merchant_id),
        mode,
        scopes: scopes(&principal, asked.scopes.as_deref())?,
        name: asked.name.as_deref().map(name).transpose()?,
        lifetime_seconds: within(
            "expiresInSeconds",
            asked.expires_in_seconds,
            1,
            LIFETIME_SECONDS_MAX,
        )?,
    };
    let actor = actor(&request, &state, &principal);
    let made = state.keys.create(&actor, authority(&principal), &new).await?;
    Ok(shown_once(&made))
}

async fn rotate(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let asked: Rotation = body::json(&request, payload).await?;
    let overlap = within("overlapSeconds", asked.overlap_seconds, 0, OVERLAP_SECONDS_MAX)?;
    let overlap = overlap.unwrap_or(OVERLAP_SECONDS);
    let actor = actor(&request, &state, &principal);
    let made = state.keys.rotate(&actor, authority(&principal), key_id(&request)?, overlap).await?;
    Ok(shown_once(&made))
}

async fn revoke(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let actor = actor(&request, &state, &principal);
    let revoked = state.keys.revoke(&actor, authority(&principal), key_id(&request)?).await?;
    Ok(HttpResponse::Ok().json(revoked.shown()))
}

impl From<KeysError> for ApiError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Db(error) => error.into(),
            KeysError::Unknown | KeysError::UnknownMerchant => Self::NotFound(error.to_string()),
            KeysError::BeyondMode { .. } | KeysError::BeyondScopes { .. } => {
                Self::Forbidden(error.to_string())
            }
            KeysError::Closed | KeysError::TooMany | KeysError::Over | KeysError::Replaced => {
                Self::Conflict(error.to_string())
            }
        }
    }
}

/// Whose keys are meant: a merchant's own, or those of whom an operator names.
fn owner(principal: &Principal, named: Option<Uuid>) -> Result<Option<MerchantId>, ApiError> {
    let named = named.map(MerchantId::from_uuid);
    match principal {
        Principal::Operator(_) => Ok(named),
        Principal::Merchant(caller) if named.is_none_or(|id| id == caller.merchant_id) => {
            Ok(Some(caller.merchant_id))
        }
        Principal::Merchant(_) => Err(KeysError::UnknownMerchant.into()),
    }
}

const fn authority(principal: &Principal) -> Authority<'_> {
    match principal {
        Principal::Merchant(caller) => Authority::Merchant(caller),
        Principal::Operator(_) => Authority::Operator,
    }
}

/// Those that were named; else the usual ones, as far as the key that is used has them.
fn scopes(principal: &Principal, named: Option<&[String]>) -> Result<Scopes, ApiError> {
    let malformed = |error| ApiError::Malformed(format!("scopes: {error}"));
    match (named, principal) {
        (Some(words), _) => Scopes::of(words.iter().map(String::as_str)).map_err(malformed),
        (None, Principal::Operator(_)) => Ok(Scopes::OF_MERCHANTS),
        (None, Principal::Merchant(caller)) => {
            let usual = Scopes::OF_MERCHANTS.words().into_iter();
            Scopes::of(usual.filter(|word| caller.scopes.words().contains(word))).map_err(malformed)
        }
    }
}

fn name(text: &str) -> Result<String, ApiError> {
    let name = Name::parse(text).map_err(|error| ApiError::Malformed(format!("name: {error}")))?;
    Ok(name.as_str().to_owned())
}

fn within(field: &str, asked: Option<i64>, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
    match asked {
        Some(n) if !(min..=max).contains(&n) => {
            Err(ApiError::Malformed(format!("{field}: {n} is not between {min} and {max}")))
        }
        fits => Ok(fits),
    }
}

fn key_id(request: &HttpRequest) -> Result<ApiKeyId, ApiError> {
    super::id(request, "keyId", "there is no such key").map(ApiKeyId::from_uuid)
}

fn shown_once((key, record): &(ApiKey, KeyRecord)) -> HttpResponse {
    answered_once(&with_key(key, record))
}

/// What is known of a new key, and the key.
pub(super) fn with_key(key: &ApiKey, record: &KeyRecord) -> Value {
    let mut shown = record.shown();
    shown["key"] = json!(key.reveal());
    shown
}

/// An answer that holds a key. Nobody on the way may keep it.
pub(super) fn answered_once(shown: &Value) -> HttpResponse {
    HttpResponse::build(StatusCode::CREATED)
        .insert_header(("Cache-Control", "no-store"))
        .json(shown)
}
