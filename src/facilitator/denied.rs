//! Whom lists forbid: those of the operator and of the merchant, the sanctions file, the chain's oracle.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::{
    domain::{InvalidReason, Refusal},
    lists::{self, Denial, Lists, Parties, Refusals, RefusedPayment, Sanctions, Stage},
    verify::{Consent, Verified},
};

use super::{
    Facilitator, FacilitatorError,
    house::Guest,
    oracle::{CLAIM_AGE_MAX, VERIFY_AGE_MAX},
};

/// What denies payments, but for the oracles, which are their chains'.
#[derive(Debug, Clone)]
pub struct Deniers {
    /// The operator's and the merchants' lists.
    pub lists: Lists,
    /// The sanctions file, if there is one.
    pub sanctions: Option<Arc<Sanctions>>,
    /// Where denials are recorded.
    pub refusals: Arc<Refusals>,
}

impl Facilitator {
    /// Whom the lists deny, as far as is known.
    pub(super) async fn would_deny(
        &self,
        guest: Guest<'_>,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        let parties = parties(guest.verified);
        let merchant_id = guest.caller.merchant_id;
        let by_list = self.deniers.lists.denies(merchant_id, &parties).await?;
        let denial = match by_list.or(self.sanctions_deny(&parties)?) {
            None => match &guest.chain.oracle {
                Some(oracle) => oracle.denies(&parties, VERIFY_AGE_MAX).await?,
                None => None,
            },
            denial => denial,
        };
        Ok(self.judged(guest, &parties, Stage::Verify, denial))
    }

    /// Whom the lists and the sanctions file deny, in the claim's database transaction, which holds the
    /// rules.
    pub(super) async fn deny(
        &self,
        conn: &mut PgConnection,
        guest: Guest<'_>,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        let parties = parties(guest.verified);
        let by_list = lists::denies(conn, guest.caller.merchant_id, &parties).await?;
        let denial = by_list.or(self.sanctions_deny(&parties)?);
        Ok(self.judged(guest, &parties, Stage::Claim, denial))
    }

    /// Whom the chain's oracle denies, shortly before the claim: it is too far away to be asked while the
    /// claim holds locks.
    pub(super) async fn deny_by_oracle(
        &self,
        guest: Guest<'_>,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        let Some(oracle) = &guest.chain.oracle else { return Ok(Ok(())) };
        let parties = parties(guest.verified);
        let denial = oracle.denies(&parties, CLAIM_AGE_MAX).await?;
        Ok(self.judged(guest, &parties, Stage::Claim, denial))
    }

    fn sanctions_deny(&self, parties: &Parties) -> Result<Option<Denial>, FacilitatorError> {
        let Some(sanctions) = &self.deniers.sanctions else { return Ok(None) };
        match sanctions.denies(parties) {
            None if sanctions.trouble().is_some() => Err(FacilitatorError::SanctionsStale),
            denial => Ok(denial),
        }
    }

    /// What a denial means to the caller, who is not told which list it was. It is recorded.
    fn judged(
        &self,
        guest: Guest<'_>,
        parties: &Parties,
        stage: Stage,
        denial: Option<Denial>,
    ) -> Result<(), Refusal> {
        let Some(denial) = denial else { return Ok(()) };
        let authorization = guest.verified.terms().authorization();
        let payment = RefusedPayment {
            merchant_id: guest.caller.merchant_id,
            api_key_id: guest.caller.api_key_id,
            parties: *parties,
            amount: authorization.amount,
            nonce: authorization.nonce,
        };
        self.deniers.refusals.keep(&payment, stage, &denial);
        let by = if denial.denier.is_merchants() { "merchant" } else { "operator" };
        let message = format!("the {by} does not allow this {}", denial.kind);
        Err(Refusal::new(InvalidReason::AddressDenied, message))
    }
}

fn parties(verified: &Verified) -> Parties {
    let terms = verified.terms();
    let (authorization, requirements) = (terms.authorization(), terms.requirements());
    let consent = Consent::shown(verified.payer_kind(), terms.wire_signature());
    Parties {
        chain_id: requirements.chain_id,
        payer: authorization.payer,
        payee: authorization.payee,
        asset: requirements.asset,
        factory: consent.deployment().map(|deployment| deployment.factory),
    }
}
