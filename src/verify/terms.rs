//! The checks that need no chain.

use std::time::Duration;

use alloy::primitives::{B256, Bytes};

use crate::domain::{
    Authorization, InvalidReason, PaymentRequest, Refusal, Requirements, Scheme, TokenDomain,
    UnixTime, X402Version,
};

use super::{Consent, EcdsaSignature, Factories, Unwrapped, authorization_digest};

/// How long before `validBefore` a payment is refused: it could not be mined in time.
///
/// npm `@x402/evm` 2.27.0 uses the same six seconds.
pub const MINING_MARGIN: Duration = Duration::from_secs(6);

/// A payment whose own words are in order, as far as they can be judged without a chain.
///
/// The payer's own key signed, or only a contract can say whether the payer agreed. Whether the chain
/// would execute it is for [`super::against`] to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub(super) version: X402Version,
    pub(super) authorization: Authorization,
    pub(super) consent: Consent,
    pub(super) wire_signature: Bytes,
    pub(super) requirements: Requirements,
    pub(super) token_domain: TokenDomain,
    pub(super) digest: B256,
    /// A wallet that is not deployed would need a factory that is not allowed.
    pub(super) lacks_factory: bool,
    /// What is wrong besides, where the signature, which comes first, is a contract's to judge.
    pub(super) objection: Option<Refusal>,
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

    /// By what the payer agreed, if it did.
    pub const fn consent(&self) -> &Consent {
        &self.consent
    }

    /// The signature in its wrapper; of the payer's own key, as the token reads it.
    pub const fn wire_signature(&self) -> &Bytes {
        &self.wire_signature
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

/// What tells equal payments: the digest of an authorization, and the signature as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PaymentKey {
    digest: B256,
    signature: Bytes,
}

/// What a request says, before anybody looks at who signed it.
#[derive(Debug, Clone)]
pub struct Statement<'a> {
    request: &'a PaymentRequest,
    token_domain: &'a TokenDomain,
    digest: B256,
}

/// Reads what a request says and checks it up to the signature, in the order of [`InvalidReason`].
pub fn statement(request: &PaymentRequest) -> Result<Statement<'_>, Refusal> {
    let (payment, requirements) = (&request.payment, &request.requirements);
    if payment.accepted.scheme != Some(Scheme::Exact) {
        return refuse(InvalidReason::Scheme, "the payload is not of the scheme `exact`");
    }
    let Some(token_domain) = &requirements.token_domain else {
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
    let digest = authorization_digest(
        requirements.chain_id,
        requirements.asset,
        token_domain,
        &payment.authorization,
    );
    Ok(Statement { request, token_domain, digest })
}

impl Statement<'_> {
    /// What tells this payment from others.
    pub fn key(&self) -> PaymentKey {
        PaymentKey { digest: self.digest, signature: self.request.payment.signature.clone() }
    }

    /// Checks the signature and what comes after it, in the order of [`InvalidReason`], and reports the
    /// first failure.
    ///
    /// A signature that is not the payer's own key's may still please a contract at the payer's address,
    /// and only the chain knows whether there is one.
    pub fn terms(self, now: UnixTime, factories: &Factories) -> Result<Terms, Refusal> {
        let request = self.request;
        let authorization = request.payment.authorization;
        let mut unwrapped = Unwrapped::of(&request.payment.signature);
        let by_key = EcdsaSignature::parse(&unwrapped.signature)
            .filter(|signature| signature.signer(self.digest) == Some(authorization.payer));
        let objection = check_payee(request)
            .and_then(|()| check_time(&authorization, now))
            .and_then(|()| check_amount(request))
            .err();
        let lacks_factory = unwrapped
            .deployment
            .take_if(|deployment| !factories.allow(deployment.factory))
            .is_some();
        let is_plain = by_key.is_some() && !lacks_factory && unwrapped.deployment.is_none();
        if is_plain && let Some(objection) = objection {
            return Err(objection);
        }
        let consent = match by_key {
            Some(signature) if is_plain => Consent::Key(signature),
            _ => Consent::Contract(unwrapped),
        };
        let wire_signature = match &consent {
            Consent::Key(signature) => signature.to_bytes().into(),
            Consent::Contract(_) => request.payment.signature.clone(),
        };
        Ok(Terms {
            version: request.version,
            authorization,
            consent,
            wire_signature,
            requirements: request.requirements.clone(),
            token_domain: self.token_domain.clone(),
            digest: self.digest,
            lacks_factory,
            objection,
        })
    }
}

/// Checks a request as far as that can be done without a chain.
pub fn terms(
    request: &PaymentRequest,
    now: UnixTime,
    factories: &Factories,
) -> Result<Terms, Refusal> {
    statement(request)?.terms(now, factories)
}

/// Whether `request` is the payment with that digest and signature again: signed by its payer, and asked
/// with the same payee, amount, asset and chain. At any time, because a repetition may come late.
///
/// A signature of the payer's own key may be spelled otherwise; one that only a contract can judge must be
/// the very one that was judged.
pub fn repeats(request: &PaymentRequest, digest: B256, signature: &[u8]) -> bool {
    let (presented, payer) = (&request.payment.signature, request.payment.authorization.payer);
    let is_signed = || {
        presented.as_ref() == signature
            || EcdsaSignature::parse(presented)
                .is_some_and(|signature| signature.signer(digest) == Some(payer))
    };
    statement(request).is_ok_and(|statement| {
        statement.digest == digest
            && check_payee(request).is_ok()
            && check_amount(request).is_ok()
            && is_signed()
    })
}

fn check_payee(request: &PaymentRequest) -> Result<(), Refusal> {
    if request.payment.authorization.payee == request.requirements.payee {
        return Ok(());
    }
    refuse(InvalidReason::RecipientMismatch, "authorization.to is not payTo")
}

/// Checks that `authorization` can be used at `now`, and long enough to be mined.
pub(super) fn check_time(authorization: &Authorization, now: UnixTime) -> Result<(), Refusal> {
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

fn check_amount(request: &PaymentRequest) -> Result<(), Refusal> {
    let (authorized, asked) = (request.payment.authorization.amount, request.requirements.amount);
    if authorized == asked {
        return Ok(());
    }
    let reason = match request.version {
        X402Version::V1 => InvalidReason::ValueMismatchV1,
        X402Version::V2 => InvalidReason::ValueMismatch,
    };
    refuse(reason, format!("{authorized} was authorized and {asked} is asked"))
}

fn refuse<T>(reason: InvalidReason, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(reason, message))
}
