//! The rules of the house: what may forbid a good payment.
//!
//! Asked twice. `/verify` tells what settling would meet, and may be a second behind. A claim asks in its
//! own database transaction, where what it is allowed is counted, so that no rule is ever exceeded.

use alloy::primitives::U256;
use sqlx::PgConnection;

use crate::{
    domain::{Refusal, SettlementId},
    limits,
    merchants::{self, Caller, Standing},
    verify::Verified,
};

use super::{
    Facilitator, FacilitatorError, ServedChain,
    caps::{self, Look, Room},
    spending,
};

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
        guest: Guest<'_>,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        if let Err(refusal) = self.would_deny(guest).await? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.would_spend(guest.verified).await? {
            return Ok(Err(refusal));
        }
        self.foresee_caps(guest).await
    }

    /// Looks whether the house has room for a payment, in the claim's database transaction and before it
    /// writes anything. `gas_wei` is what the payment costs in gas, if that was asked for.
    pub(super) async fn admit(
        &self,
        conn: &mut PgConnection,
        guest: Guest<'_>,
        gas_wei: Option<U256>,
    ) -> Result<Look, FacilitatorError> {
        // The gate believes a key for a moment; a promise is made only by one that is good now.
        let Caller { merchant_id, api_key_id, .. } = *guest.caller;
        match merchants::standing(conn, merchant_id, api_key_id).await? {
            Standing::Good => (),
            Standing::Stopped => return Err(FacilitatorError::MerchantStopped),
            Standing::KeyGone => return Err(FacilitatorError::KeyGone),
        }
        if let Err(refusal) = self.deny(conn, guest).await? {
            return Ok(Look::Refused(refusal));
        }
        // The payer is held, so what is found to be left of its policy's budgets is left.
        let policy = match spending::spend(conn, guest.verified).await? {
            Ok(budgets) => budgets,
            Err(refusal) => return Ok(Look::Refused(refusal)),
        };
        caps::look(conn, guest, policy, gas_wei).await
    }

    /// Takes a claimed payment that was admitted, in the claim's database transaction, and counts it. The last
    /// thing before the commit: whoever is counted in the same waits. After a refusal nothing of that
    /// database transaction may be committed.
    pub(super) async fn take(
        &self,
        conn: &mut PgConnection,
        settlement_id: SettlementId,
        room: Box<Room>,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        caps::count(conn, settlement_id, room).await
    }
}

/// Keeps the rules as they are until the claim's database transaction ends.
pub(super) async fn open(conn: &mut PgConnection) -> Result<(), FacilitatorError> {
    Ok(limits::hold_rules(conn).await?)
}
