//! `/v1/onboarding`: merchants who come by themselves, with Sign-In with Ethereum (EIP-4361).
//!
//! Nobody needs a key for it: the signature says who asks.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::Method, web};
use alloy::primitives::{Address, Bytes};
use serde::Deserialize;
use serde_json::json;

use crate::{
    domain::{ChainId, KeyMode},
    facilitator::Signed,
    http::{State, address::ClientAddress, body, error::ApiError, resource},
    merchants::{
        KeysError, MerchantsError, Name, Onboarding, OnboardingError, SignIn, SignInError,
    },
};

use super::keys::{answered_once, with_key};

/// When to ask again whether another day has begun.
const DAY_PATIENCE: Duration = Duration::from_secs(3_600);
/// The longest signature: those of contract wallets, as payments may have them.
const MAX_SIGNATURE_BYTES: usize = 8_192;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    address: Address,
    network: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Coming {
    message: String,
    signature: Bytes,
    name: Option<String>,
}

/// A message that somebody signed, checked.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) sign_in: SignIn,
    pub(super) signature: Bytes,
    pub(super) mode: KeyMode,
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource(
            "/v1/onboarding/challenges",
            [(Method::POST, web::route().to(challenge))],
        ))
        .service(resource("/v1/onboarding", [(Method::POST, web::route().to(come))]));
}

async fn challenge(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let door = door(&state)?;
    let asked: Question = body::json(&request, payload).await?;
    let chain_id = network(&asked.network)?;
    let proposal = door.propose(asked.address, chain_id, (state.clock)())?;
    Ok(HttpResponse::Created().json(json!({
        "message": proposal.message,
        "nonce": proposal.nonce,
        "expiresAt": proposal.expires_at.seconds(),
    })))
}

async fn come(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let door = door(&state)?;
    let coming: Coming = body::json(&request, payload).await?;
    let name = coming.name.as_deref().map(Name::parse).transpose();
    let name = name.map_err(|error| ApiError::Malformed(format!("name: {error}")))?;
    let proven = proven(&state, &coming.message, coming.signature).await?;
    let origin = ClientAddress::of(&request, state.n_trusted_proxies).to_string();
    let Proven { sign_in, signature, mode } = &proven;
    let onboarded = door.let_in(sign_in, signature, *mode, name, &origin).await?;
    let mut shown = with_key(&onboarded.key, &onboarded.record);
    shown["isNew"] = json!(onboarded.is_new);
    shown["merchantName"] = json!(onboarded.merchant.name);
    shown["payee"] = json!({
        "network": sign_in.chain_id().to_string(),
        "address": sign_in.address().to_checksum(None),
    });
    Ok(answered_once(&shown))
}

/// Checks a message and its signature. That it is used once is for whoever uses it.
pub(super) async fn proven(
    state: &State,
    message: &str,
    signature: Bytes,
) -> Result<Proven, ApiError> {
    if signature.len() > MAX_SIGNATURE_BYTES {
        let problem = format!("signature: it is longer than {MAX_SIGNATURE_BYTES} bytes");
        return Err(ApiError::Malformed(problem));
    }
    let sign_in = door(state)?.read(message, (state.clock)())?;
    let (chain_id, signer) = (sign_in.chain_id(), sign_in.address());
    let signed = state.facilitator.signed(chain_id, signer, sign_in.digest(), &signature).await?;
    let mode = match signed {
        Signed::On(mode) => mode,
        Signed::No => {
            let problem =
                format!("the signature is not {signer}'s; a contract must be deployed to sign");
            return Err(ApiError::Forbidden(problem));
        }
        Signed::NotServed(problem) => {
            return Err(ApiError::Malformed(format!("message: {problem}")));
        }
    };
    Ok(Proven { sign_in, signature, mode })
}

/// A chain, as CAIP-2 writes it.
pub(super) fn network(text: &str) -> Result<ChainId, ApiError> {
    text.parse().map_err(|_| {
        ApiError::Malformed("network: expected CAIP-2, such as eip155:8453".to_owned())
    })
}

fn door(state: &State) -> Result<&Onboarding, ApiError> {
    state.onboarding.as_ref().ok_or_else(|| {
        ApiError::NotFound("merchants do not come by themselves here; ask the operator".to_owned())
    })
}

impl From<SignInError> for ApiError {
    fn from(error: SignInError) -> Self {
        Self::Malformed(format!("message: {error}"))
    }
}

impl From<OnboardingError> for ApiError {
    fn from(error: OnboardingError) -> Self {
        match error {
            OnboardingError::Db(error)
            | OnboardingError::Merchant(MerchantsError::Db(error))
            | OnboardingError::Key(KeysError::Db(error)) => error.into(),
            OnboardingError::Stopped => Self::Suspended(error.to_string()),
            OnboardingError::TooMany => {
                Self::RateLimited { problem: error.to_string(), retry_after: DAY_PATIENCE }
            }
            OnboardingError::Used
            | OnboardingError::Merchant(_)
            | OnboardingError::Key(_)
            | OnboardingError::Payee(_) => Self::Conflict(error.to_string()),
        }
    }
}
