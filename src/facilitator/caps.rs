//! Caps, gas budgets and floors, asked about a payment.
//!
//! A claim reads them before it writes anything, so that whoever knocks at a wall leaves nothing behind,
//! and counts last, because everybody who is counted in the same waits until it has committed.

use alloy::primitives::U256;
use sqlx::PgConnection;

use crate::{
    db::During,
    domain::{Refusal, SettlementId},
    limits::{self, Ask, Budget, Place, Standing, Visit},
};

use super::{Facilitator, FacilitatorError, house::Guest};

/// A payment that caps leave room for, and what it is to be counted in.
#[derive(Debug)]
pub(super) struct Room {
    standing: Standing,
    visit: Visit,
    ask: Ask,
    /// Budgets of the payer's policy, which has room in them.
    policy: Vec<Budget>,
}

/// What caps say before a payment is claimed.
#[derive(Debug)]
pub(super) enum Look {
    /// They leave room.
    Room(Box<Room>),
    /// They do not.
    Refused(Refusal),
    /// They cannot be judged before this is done, which takes too long to hold a payer for it.
    Errand(Errand),
}

/// What has to be done before a claim is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// To learn what the payment costs in gas.
    AskForGas,
    /// To count what was claimed before a cap was made.
    CountEarlier,
}

impl Room {
    /// What a claim sets aside for gas.
    pub(super) fn gas_reserved_wei(&self) -> U256 {
        if self.standing.has_gas_budget() { self.ask.gas_wei } else { U256::ZERO }
    }
}

impl Facilitator {
    /// What caps would say, as of a second ago.
    pub(super) async fn foresee_caps(
        &self,
        guest: Guest<'_>,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        let payer = guest.verified.terms().authorization().payer;
        let standing = self.forecast.standing(place(guest), payer).await?;
        let gas_wei = match standing.asks_for_gas() {
            true => guest.chain.engine.gas_cost_wei(guest.verified).await?,
            false => U256::ZERO,
        };
        Ok(limits::judge(&standing, ask(guest, gas_wei)))
    }

    /// Does what kept caps from being judged, while nothing is held. Whatever costs gas is told.
    pub(super) async fn run(
        &self,
        errand: Errand,
        guest: Guest<'_>,
    ) -> Result<Option<U256>, FacilitatorError> {
        match errand {
            Errand::AskForGas => Ok(Some(guest.chain.engine.gas_cost_wei(guest.verified).await?)),
            Errand::CountEarlier => {
                let mut db = self.pool.begin().await.during("count what was claimed before")?;
                limits::count_earlier(&mut db, &visit(guest)).await?;
                db.commit().await.during("count what was claimed before")?;
                Ok(None)
            }
        }
    }
}

/// Reads the caps in the claim's database transaction, and judges them by what is counted so far. What the
/// payer's `policy` is to be counted in is counted along.
pub(super) async fn look(
    conn: &mut PgConnection,
    guest: Guest<'_>,
    policy: Vec<Budget>,
    gas_wei: Option<U256>,
) -> Result<Look, FacilitatorError> {
    let visit = visit(guest);
    let standing = limits::standing(conn, &visit).await?;
    if standing.asks_for_gas() && gas_wei.is_none() {
        return Ok(Look::Errand(Errand::AskForGas));
    }
    if !standing.uncounted().is_empty() {
        return Ok(Look::Errand(Errand::CountEarlier));
    }
    let ask = ask(guest, gas_wei.unwrap_or_default());
    Ok(match limits::judge(&standing, ask) {
        Ok(()) => Look::Room(Box::new(Room { standing, visit, ask, policy })),
        Err(refusal) => Look::Refused(refusal),
    })
}

/// Counts a claimed payment, and judges once more by what everybody before it has used. The last thing
/// before the commit. After a refusal nothing of the database transaction may be committed.
pub(super) async fn count(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    room: Box<Room>,
) -> Result<Result<(), Refusal>, FacilitatorError> {
    let Room { mut standing, visit, ask, policy } = *room;
    if standing.has_gas_budget() {
        let subjects = standing.gas_subjects();
        limits::hold_gas(conn, &subjects).await?;
        let used = limits::gas_used(conn, &visit, &subjects).await?;
        let of_others: Vec<U256> =
            used.iter().map(|used| used.saturating_sub(ask.gas_wei)).collect();
        standing = standing.with_gas(&of_others);
    }
    let mut budgets = standing.budgets();
    // Behind the others, whose places say which cap they are of.
    budgets.extend(policy);
    if !budgets.is_empty() {
        let used = limits::reserve(conn, settlement_id, ask.amount, &budgets).await?;
        standing = standing.recounted(&used, ask.amount.base_units());
    }
    Ok(limits::judge(&standing, ask))
}

fn place(guest: Guest<'_>) -> Place {
    let requirements = guest.verified.terms().requirements();
    Place {
        merchant_id: guest.caller.merchant_id,
        api_key_id: guest.caller.api_key_id,
        chain_id: requirements.chain_id,
        asset: requirements.asset,
    }
}

fn visit(guest: Guest<'_>) -> Visit {
    let payer = guest.verified.terms().authorization().payer;
    Visit { place: place(guest), payer: Some(payer) }
}

fn ask(guest: Guest<'_>, gas_wei: U256) -> Ask {
    Ask { amount: guest.verified.terms().authorization().amount, gas_wei }
}
