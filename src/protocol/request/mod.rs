//! The question of `/verify` and `/settle`, in either version, into domain types.
//!
//! The body is read as plain JSON and each field converted by hand: the official servers forward keys
//! that no schema lists, and a message of ours names the field that is wrong. Of a repeated key the
//! last one counts, as in JavaScript.

use alloy::primitives::Address;
use serde_json::{Map, Value};

use crate::domain::{
    Accepted, Amount, Authorization, AuthorizationNonce, InvalidReason, Payment, PaymentRequest,
    Refusal, Requirements, Scheme, TokenDomain, X402Version,
};

use super::{chain_id, object::Object, values};

/// How much of the sold URL is kept: what npm `@x402/core` 2.27.0 allows an `iconUrl`.
const MAX_RESOURCE_CHARS: usize = 2_048;

/// The longest name or version of a token; those of USDC on Base are `USD Coin` and `2`.
const MAX_TOKEN_DOMAIN_BYTES: usize = 256;

/// The longest network that an answer echoes. CAIP-2 allows 41 characters.
const MAX_NETWORK_BYTES: usize = 64;

/// How much of a buyer's or merchant's text a message quotes.
const MAX_QUOTED_CHARS: usize = 64;

/// Why a body is not a [`PaymentRequest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a JSON object: not a question about a payment at all.
    #[error("{0}")]
    Malformed(String),
    /// A question, whose answer is no.
    #[error("{}", .0.refusal.message)]
    Refused(Unparsed),
}

/// What is known of a request that was refused while it was read: enough to answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unparsed {
    /// The verdict.
    pub refusal: Refusal,
    /// The network as the requirements name it; empty if they do not.
    pub network: String,
    /// Who claims to pay, where that could be read.
    pub payer: Option<Address>,
}

/// Reads a request, and reports the first of: version, envelope, requirements, payload.
pub fn parse_request(body: &[u8]) -> Result<PaymentRequest, ParseError> {
    let json: Value = serde_json::from_slice(body)
        .map_err(|error| ParseError::Malformed(format!("the body is not JSON: {error}")))?;
    let envelope = json
        .as_object()
        .ok_or_else(|| ParseError::Malformed("the body is not a JSON object".to_owned()))?;
    request(envelope).map_err(|refusal| {
        let (network, payer) = (named_network(&json), named_payer(&json));
        ParseError::Refused(Unparsed { refusal, network, payer })
    })
}

fn request(envelope: &Map<String, Value>) -> Result<PaymentRequest, Refusal> {
    let version = version(&Object::root(envelope, InvalidReason::X402Version))?;
    let asked =
        Object::root(envelope, InvalidReason::PaymentRequirements).object("paymentRequirements")?;
    let sent = Object::root(envelope, InvalidReason::Payload).object("paymentPayload")?;
    let requirements = requirements(version, &asked, &sent)?;
    let payment = payment(version, &sent)?;
    Ok(PaymentRequest { version, payment, requirements })
}

fn version(envelope: &Object<'_>) -> Result<X402Version, Refusal> {
    let refuse =
        |complaint| Err(envelope.refusal(InvalidReason::X402Version, "x402Version", complaint));
    let inner = envelope.value("paymentPayload").get("x402Version").unwrap_or(&Value::Null);
    let stated = match envelope.value("x402Version") {
        Value::Null => inner,
        outer => outer,
    };
    if !inner.is_null() && values::integer(inner) != values::integer(stated) {
        return refuse("not the same as paymentPayload.x402Version");
    }
    match values::integer(stated) {
        Some(1) => Ok(X402Version::V1),
        Some(2) => Ok(X402Version::V2),
        _ => refuse("expected 1 or 2"),
    }
}

fn requirements(
    version: X402Version,
    asked: &Object<'_>,
    sent: &Object<'_>,
) -> Result<Requirements, Refusal> {
    let scheme_name = asked.read("scheme", values::text)?;
    let scheme = scheme(scheme_name).ok_or_else(|| {
        let complaint = format!("{} is not served, only `exact` is", quoted(scheme_name));
        asked.refusal(InvalidReason::UnsupportedScheme, "scheme", &complaint)
    })?;
    let network = asked.read("network", values::text)?;
    let chain_id = chain_id(version, network).ok_or_else(|| {
        let form = match version {
            X402Version::V1 => "the name of an EVM network in x402 version 1, such as `base`",
            X402Version::V2 => "an EVM chain in CAIP-2, such as `eip155:8453`",
        };
        let complaint = format!("{} is not {form}", quoted(network));
        asked.refusal(InvalidReason::Network, "network", &complaint)
    })?;
    let (amount_key, resource) = match version {
        X402Version::V1 => ("maxAmountRequired", Some(asked.value("resource"))),
        X402Version::V2 => ("amount", sent.value("resource").get("url")),
    };
    Ok(Requirements {
        scheme,
        chain_id,
        asset: asked.read("asset", values::address)?,
        payee: asked.read("payTo", values::address)?,
        amount: Amount::from_base_units(asked.read(amount_key, values::uint)?),
        max_timeout_seconds: asked.read("maxTimeoutSeconds", values::seconds)?,
        token_domain: token_domain(asked)?,
        resource: resource.and_then(Value::as_str).map(kept_resource),
    })
}

fn scheme(name: &str) -> Option<Scheme> {
    (name == Scheme::Exact.as_str()).then_some(Scheme::Exact)
}

/// Empty counts as missing, as in npm `@x402/evm` 2.27.0, which tests for truth.
fn token_domain(asked: &Object<'_>) -> Result<Option<TokenDomain>, Refusal> {
    let extra = asked.value("extra");
    let half = |key| extra.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(name), Some(version)) = (half("name"), half("version")) else {
        return Ok(None);
    };
    if name.len().max(version.len()) > MAX_TOKEN_DOMAIN_BYTES {
        let complaint = format!("name and version have at most {MAX_TOKEN_DOMAIN_BYTES} bytes");
        return Err(asked.refusal(InvalidReason::PaymentRequirements, "extra", &complaint));
    }
    // Postgres text cannot hold NUL, and the signed name may not be altered.
    if name.contains('\0') || version.contains('\0') {
        let complaint = "name and version hold no NUL character";
        return Err(asked.refusal(InvalidReason::PaymentRequirements, "extra", complaint));
    }
    Ok(Some(TokenDomain { name: name.to_owned(), version: version.to_owned() }))
}

fn kept_resource(url: &str) -> String {
    // Postgres text cannot hold NUL.
    url.chars().filter(|c| *c != '\0').take(MAX_RESOURCE_CHARS).collect()
}

fn payment(version: X402Version, sent: &Object<'_>) -> Result<Payment, Refusal> {
    let accepted = accepted(version, sent)?;
    let payload = sent.object("payload")?;
    if !payload.value("permit2Authorization").is_null() {
        return Err(payload.refusal(
            InvalidReason::UnsupportedPayloadType,
            "permit2Authorization",
            "Permit2 is not served, only EIP-3009 is",
        ));
    }
    let signed = payload.object("authorization")?;
    let authorization = Authorization {
        payer: signed.read("from", values::address)?,
        payee: signed.read("to", values::address)?,
        amount: Amount::from_base_units(signed.read("value", values::uint)?),
        valid_after: signed.read("validAfter", values::uint)?,
        valid_before: signed.read("validBefore", values::uint)?,
        nonce: AuthorizationNonce::from_bytes(signed.read("nonce", values::bytes32)?),
    };
    let signature = payload.read("signature", values::signature)?;
    Ok(Payment { accepted, authorization, signature })
}

/// Only scheme and network: the rest of the offer repeats the requirements, which are the trusted side.
fn accepted(version: X402Version, sent: &Object<'_>) -> Result<Accepted, Refusal> {
    let offer = match version {
        X402Version::V1 => sent.clone(),
        X402Version::V2 => sent.object("accepted")?,
    };
    Ok(Accepted {
        scheme: offer.value("scheme").as_str().and_then(scheme),
        chain_id: offer.value("network").as_str().and_then(|name| chain_id(version, name)),
    })
}

fn named_network(json: &Value) -> String {
    let network = json.pointer("/paymentRequirements/network").and_then(Value::as_str);
    network.filter(|name| name.len() <= MAX_NETWORK_BYTES).unwrap_or_default().to_owned()
}

fn named_payer(json: &Value) -> Option<Address> {
    ["authorization", "permit2Authorization"].into_iter().find_map(|key| {
        let payer = json.pointer(&format!("/paymentPayload/payload/{key}/from"))?;
        values::address(payer).ok()
    })
}

fn quoted(text: &str) -> String {
    let kept: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    format!("{kept:?}")
}

#[cfg(test)]
mod tests;
