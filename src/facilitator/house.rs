//! The rules of the house: what may forbid a good payment.
//!
//! Asked twice. `/verify` tells what settling would meet, and may be a second behind. A claim asks in its
//! own database transaction, where what it is allowed is counted, so that no rule is ever exceeded.

use sqlx::PgConnection;

use crate::{
    domain::{Refusal, SettlementId},
    limits,
    merchants::{self, Caller, Standing},
    verify::Verified,
};

use super::{Facilitator, FacilitatorError, ServedChain};

/// A good payment, and who asks about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest<'a> {
    pub(super) caller: &'a Caller,
    pub(super) chain: &'a ServedChain,
    pub(super) verified: &'a Verified,
}

impl Facilitator {
    /// Whether the house would take the payment, as far as is known. Changes nothing.
    pub(super) async fn would_take(
        &self,
        _guest: Guest<'_>,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        Ok(Ok(()))
    }

    /// Takes a claimed payment, in the claim's database transaction, and counts it. After a refusal nothing
    /// of that database transaction may be committed.
    pub(super) async fn take(
        &self,
        conn: &mut PgConnection,
        _settlement_id: SettlementId,
        guest: Guest<'_>,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        // The gate believes a key for a moment; a promise is made only by one that is good now.
        let Caller { merchant_id, api_key_id, .. } = *guest.caller;
        match merchants::standing(conn, merchant_id, api_key_id).await? {
            Standing::Good => Ok(Ok(())),
            Standing::Stopped => Err(FacilitatorError::MerchantStopped),
            Standing::KeyGone => Err(FacilitatorError::KeyGone),
        }
    }
}

/// Keeps the rules as they are until the claim's database transaction ends.
pub(super) async fn open(conn: &mut PgConnection) -> Result<(), FacilitatorError> {
    Ok(limits::hold_rules(conn).await?)
}
