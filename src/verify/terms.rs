//! The checks that need no chain.

use std::time::Duration;

use alloy::primitives::B256;

use crate::domain::{
    Authorization, InvalidReason, PaymentRequest, Refusal, Requirements, Scheme, TokenDomain,
    UnixTime, X402Version,
};

use super::{EcdsaSignature, SignatureForm, authorization_digest};

/// How long before `validBefore` a payment is refused: it could not be mined in time.
///
/// npm `@x402/evm` 2.27.0 uses the same six seconds.
pub const MINING_MARGIN: Duration = Duration::from_secs(6);

/// A payment whose own words are in order: signed by the payer, for what was asked, at this time.
///
/// Whether the chain would execute it is for [`super::against`] to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub(super) version: X402Version,
    pub(super) authorization: Authorization,
    pub(super) signature: EcdsaSignature,
    pub(super) requirements: Requirements,
    pub(super) token_domain: TokenDomain,
    pub(super) digest: B256,
}

impl Terms {
    /// The dialect of the question.
    pub const fn version(&self) -> X402Version {
        self.version
    }

    /// What was authorized.
    pub const fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// The payer's signature.
    pub const fn signature(&self) -> &EcdsaSignature {
        &self.signature
    }

    /// What was asked.
    pub const fn requirements(&self) -> &Requirements {
        &self.requirements
    }

    /// The signing domain of the token, as the merchant gave it.
    pub const fn token_domain(&self) -> &TokenDomain {
        &self.token_domain
    }

    /// The EIP-712 digest that was signed: equal digests are equal authorizations.
    pub const fn digest(&self) -> B256 {
        self.digest
    }
}

/// Checks a request in the order of [`InvalidReason`] and reports the first failure.
pub fn terms(request: &PaymentRequest, now: UnixTime) -> Result<Terms, Refusal> {
    let terms = signed_terms(request)?;
    check_payee(&terms)?;
    check_time(&terms.authorization, now)?;
    check_amount(&terms)?;
    Ok(terms)
}

/// Whether `request` is the payment whose digest is `digest` again: signed by its payer, and asked
/// with the same payee, amount, asset and chain. At any time, because a repetition may come late.
pub fn repeats(request: &PaymentRequest, digest: B256) -> bool {
    signed_terms(request).is_ok_and(|terms| {
        terms.digest == digest && check_payee(&terms).is_ok() && check_amount(&terms).is_ok()
    })
}

fn signed_terms(request: &PaymentRequest) -> Result<Terms, Refusal> {
    let (payment, requirements) = (&request.payment, &request.requirements);
    if payment.accepted.scheme != Some(Scheme::Exact) {
        return refuse(InvalidReason::Scheme, "the payload is not of the scheme `exact`");
    }
    let Some(token_domain) = requirements.token_domain.clone() else {
        return refuse(
            InvalidReason::MissingEip712Domain,
            "paymentRequirements.extra needs `name` and `version` of the token",
        );
    };
    if payment.accepted.chain_id != Some(requirements.chain_id) {
        return refuse(
            InvalidReason::NetworkMismatch,
            format!("the payload is not for {}", requirements.chain_id),
        );
    }
    let signature = match SignatureForm::of(&payment.signature) {
        SignatureForm::Ecdsa(signature) => signature,
        SignatureForm::Erc6492 => {
            return refuse(
                InvalidReason::Eip6492FactoryNotAllowed,
                "wallets that are not deployed are not served",
            );
        }
        SignatureForm::Other => {
            return refuse(
                InvalidReason::Signature,
                "the signature is not 65 bytes ending in 27 or 28",
            );
        }
    };
    let authorization = payment.authorization;
    let digest = authorization_digest(
        requirements.chain_id,
        requirements.asset,
        &token_domain,
        &authorization,
    );
    if signature.signer(digest) != Some(authorization.payer) {
        return refuse(
            InvalidReason::Signature,
            "the signature is not the payer's for this token, chain and authorization",
        );
    }
    Ok(Terms {
        version: request.version,
        authorization,
        signature,
        requirements: requirements.clone(),
        token_domain,
        digest,
    })
}

fn check_payee(terms: &Terms) -> Result<(), Refusal> {
    if terms.authorization.payee == terms.requirements.payee {
        return Ok(());
    }
    refuse(InvalidReason::RecipientMismatch, "authorization.to is not payTo")
}

fn check_time(authorization: &Authorization, now: UnixTime) -> Result<(), Refusal> {
    if authorization.valid_before < now.saturating_add(MINING_MARGIN).as_u256() {
        return refuse(
            InvalidReason::ValidBefore,
            format!(
                "validBefore {} is less than {} seconds after {now}",
                authorization.valid_before,
                MINING_MARGIN.as_secs()
            ),
        );
    }
    if authorization.valid_after > now.as_u256() {
        return refuse(
            InvalidReason::ValidAfter,
            format!("validAfter {} is later than {now}", authorization.valid_after),
        );
    }
    Ok(())
}

fn check_amount(terms: &Terms) -> Result<(), Refusal> {
    let (authorized, asked) = (terms.authorization.amount, terms.requirements.amount);
    if authorized == asked {
        return Ok(());
    }
    let reason = match terms.version {
        X402Version::V1 => InvalidReason::ValueMismatchV1,
        X402Version::V2 => InvalidReason::ValueMismatch,
    };
    refuse(reason, format!("{authorized} was authorized and {asked} is asked"))
}

fn refuse<T>(reason: InvalidReason, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(reason, message))
}
