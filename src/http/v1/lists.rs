//! `/v1/lists/entries` and `/v1/refusals`: who is allowed and denied, and which payments that cost.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{self, ServiceConfig},
};
use alloy::primitives::Address;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    domain::MerchantId,
    facilitator::N_CHANGED_MAX,
    http::{
        State, body,
        caller::{actor, operator, principal},
        error::ApiError,
        resource,
    },
    lists::{Entry, Filter, Kind, NewEntry, Owner, RefusalFilter, RefusalRecord, Verb},
    merchants::{Principal, Scope},
};

use super::page::{limit, page};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Query {
    merchant_id: Option<Uuid>,
    kind: Option<String>,
    verb: Option<String>,
    address: Option<String>,
    after: Option<i64>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RefusalQuery {
    merchant_id: Option<Uuid>,
    after: Option<i64>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Addition {
    merchant_id: Option<Uuid>,
    entries: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    kind: String,
    verb: String,
    network: Option<String>,
    address: String,
    #[serde(default)]
    note: String,
}

/// Its routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    let all = [(Method::GET, web::route().to(list)), (Method::POST, web::route().to(add))];
    config
        .service(resource("/v1/lists/entries", all))
        .service(resource(
            "/v1/lists/entries/{entryId}",
            [(Method::DELETE, web::route().to(remove))],
        ))
        .service(resource("/v1/refusals", [(Method::GET, web::route().to(refusals))]));
}

async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Read).await?;
    let query: Query = body::query(&request)?;
    let limit = limit(query.limit)?;
    let filter = Filter {
        owner: owner(&principal, query.merchant_id)?,
        kind: query.kind.as_deref().map(kind).transpose()?,
        verb: query.verb.as_deref().map(verb).transpose()?,
        address: query.address.as_deref().map(address).transpose()?,
        after: query.after.unwrap_or_default(),
        limit,
    };
    let entries = state.listing.entries(&filter).await?;
    let shown: Vec<Value> = entries.iter().map(Entry::shown).collect();
    Ok(HttpResponse::Ok().json(page("entries", &shown, "entryId", limit)))
}

async fn add(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let asked: Addition = body::json(&request, payload).await?;
    let n = asked.entries.len();
    if !(1..=N_CHANGED_MAX).contains(&n) {
        let problem = format!("entries: expected 1 to {N_CHANGED_MAX}, found {n}");
        return Err(ApiError::Malformed(problem));
    }
    let entries = asked.entries.iter().enumerate().map(|(n, line)| {
        entry(line).map_err(|problem| ApiError::Malformed(format!("entries[{n}].{problem}")))
    });
    let entries: Vec<NewEntry> = entries.collect::<Result<_, _>>()?;
    let owner = owner(&principal, asked.merchant_id)?;
    if let Some(merchant_id) = owner.merchant_id() {
        // An operator may name a merchant that does not exist.
        state.merchants.find(merchant_id).await?;
    }
    let actor = actor(&request, &state, &principal);
    let added = state.listing.add(&actor, owner, &entries).await?;
    let added = added.map_err(|full| ApiError::Conflict(full.to_string()))?;
    Ok(HttpResponse::Ok().json(json!({ "added": added.n_entries, "version": added.version })))
}

async fn remove(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let principal = principal(&request, &state, Scope::Manage).await?;
    let unknown = || ApiError::NotFound("there is no such entry".to_owned());
    let entry_id = request.match_info().get("entryId").and_then(|text| text.parse().ok());
    let owner = match &principal {
        Principal::Operator(_) => None,
        Principal::Merchant(caller) => Some(Owner::Merchant(caller.merchant_id)),
    };
    let actor = actor(&request, &state, &principal);
    let entry_id = entry_id.ok_or_else(unknown)?;
    if !state.listing.remove_entry(&actor, owner, entry_id).await? {
        return Err(unknown());
    }
    Ok(HttpResponse::Ok().json(json!({ "removed": 1 })))
}

async fn refusals(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    operator(&request, &state, Scope::Read).await?;
    let query: RefusalQuery = body::query(&request)?;
    let limit = limit(query.limit)?;
    let merchant_id = query.merchant_id.map(MerchantId::from_uuid);
    let filter = RefusalFilter { merchant_id, after: query.after, limit };
    let refusals = state.listing.refusals(&filter).await?;
    let shown: Vec<Value> = refusals.iter().map(RefusalRecord::shown).collect();
    Ok(HttpResponse::Ok().json(page("refusals", &shown, "refusalId", limit)))
}

/// Whose lists: a merchant has its own and sees no others.
fn owner(principal: &Principal, named: Option<Uuid>) -> Result<Owner, ApiError> {
    let named = named.map(MerchantId::from_uuid);
    match principal {
        Principal::Operator(_) => Ok(named.into()),
        Principal::Merchant(caller) if named.is_none_or(|id| id == caller.merchant_id) => {
            Ok(Owner::Merchant(caller.merchant_id))
        }
        Principal::Merchant(_) => Err(ApiError::NotFound("there is no such merchant".to_owned())),
    }
}

/// The entry, or the member that is wrong and why.
fn entry(line: &Line) -> Result<NewEntry, String> {
    let kind = Kind::parse(&line.kind).ok_or("kind: expected payer, payee, asset or factory")?;
    let verb = Verb::parse(&line.verb).ok_or("verb: expected allow or deny")?;
    let chain_id = line.network.as_deref().map(str::parse).transpose();
    let chain_id = chain_id.map_err(|_| "network: expected an EVM chain, such as eip155:8453")?;
    let address = read_address(&line.address).ok_or("address: expected 0x and 40 hex digits")?;
    NewEntry::new(kind, verb, chain_id, address, &line.note)
        .map_err(|error| format!("note: {error}"))
}

fn kind(text: &str) -> Result<Kind, ApiError> {
    let problem =
        || ApiError::Malformed("kind: expected payer, payee, asset or factory".to_owned());
    Kind::parse(text).ok_or_else(problem)
}

fn verb(text: &str) -> Result<Verb, ApiError> {
    Verb::parse(text).ok_or_else(|| ApiError::Malformed("verb: expected allow or deny".to_owned()))
}

fn address(text: &str) -> Result<Address, ApiError> {
    let problem = || ApiError::Malformed("address: expected 0x and 40 hex digits".to_owned());
    read_address(text).ok_or_else(problem)
}

fn read_address(text: &str) -> Option<Address> {
    text.strip_prefix("0x")?.parse().ok()
}
