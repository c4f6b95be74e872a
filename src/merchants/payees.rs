//! Where a merchant may be paid.

use std::{collections::BTreeSet, sync::Arc};

use alloy::primitives::{Address, Bytes};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use crate::{
    audit::{self, Actor, Change},
    db::{DbError, During},
    domain::{ChainId, MerchantId},
};

use super::{SignIn, store};

/// How many addresses a merchant may have.
pub const N_PAYEES_MAX: usize = 100;

/// The addresses at which a merchant may be paid. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payees(Option<Arc<BTreeSet<(ChainId, Address)>>>);

/// An address at which a merchant may be paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payee {
    /// Where.
    pub chain_id: ChainId,
    /// The address.
    pub address: Address,
    /// Whether the merchant proved it, or the operator says so.
    pub is_proven: bool,
    /// Since when; RFC 3339, UTC.
    pub created_at: String,
}

/// How we know that an address is the merchant's.
#[derive(Debug, Clone, Copy)]
pub enum PayeeProof<'a> {
    /// By a message that was signed for it; whoever checked that says so.
    SignIn {
        /// What was signed.
        sign_in: &'a SignIn,
        /// By what.
        signature: &'a Bytes,
    },
    /// The operator says so.
    Operator,
}

/// Why a merchant's payees are not as somebody wants them.
#[derive(Debug, thiserror::Error)]
pub enum PayeesError {
    /// The database could not be read or written.
    #[error(transparent)]
    Db(#[from] DbError),
    /// It is not among them.
    #[error("the merchant has no such payee")]
    Unknown,
    /// The message was used before.
    #[error("the message was used before; ask for a new one")]
    Used,
    /// There are enough.
    #[error("the merchant has {N_PAYEES_MAX} payees, which are the most")]
    TooMany,
    /// Without it, any address would do.
    #[error("the last payee stays: without one, the merchant could be paid at any address")]
    Last,
}

impl Payees {
    /// Any address.
    pub const ANY: Self = Self(None);

    /// Those and no others; any, if there are none.
    pub fn of(payees: impl IntoIterator<Item = (ChainId, Address)>) -> Self {
        let payees: BTreeSet<_> = payees.into_iter().collect();
        Self((!payees.is_empty()).then(|| Arc::new(payees)))
    }

    /// Whether payments to that address may be taken.
    pub fn allow(&self, chain_id: ChainId, payee: Address) -> bool {
        self.0.as_ref().is_none_or(|payees| payees.contains(&(chain_id, payee)))
    }
}

impl Payee {
    /// The JSON of the API.
    pub fn shown(&self) -> Value {
        json!({
            "network": self.chain_id.to_string(),
            "address": self.address.to_checksum(None),
            "isProven": self.is_proven,
            "createdAt": self.created_at,
        })
    }
}

/// The book of payees in a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PayeeBook {
    pool: PgPool,
}

impl PayeeBook {
    /// The payees in that database.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Where a merchant may be paid, oldest first; anywhere, if there is none.
    pub async fn of(&self, merchant_id: MerchantId) -> Result<Vec<Payee>, PayeesError> {
        let mut conn = self.pool.acquire().await.during("read a merchant's payees")?;
        Ok(store::payees(&mut conn, merchant_id).await?)
    }

    /// Adds a payee; one that is there already stays as it is. Processes that run notice it within a
    /// second. The first one of a merchant is the only one that it may be paid at from then on.
    pub async fn add(
        &self,
        actor: &Actor,
        merchant_id: MerchantId,
        at: (ChainId, Address),
        proof: &PayeeProof<'_>,
    ) -> Result<Vec<Payee>, PayeesError> {
        let mut db = self.pool.begin().await.during("add a payee")?;
        store::hold_merchant(&mut db, merchant_id).await?;
        if let PayeeProof::SignIn { sign_in, .. } = proof
            && !store::use_message(&mut db, sign_in.nonce()).await?
        {
            return Err(PayeesError::Used);
        }
        let payees = add(&mut db, actor, merchant_id, at, proof).await?;
        db.commit().await.during("add a payee")?;
        Ok(payees)
    }

    /// Removes a payee, but not the last one.
    pub async fn remove(
        &self,
        actor: &Actor,
        merchant_id: MerchantId,
        at: (ChainId, Address),
    ) -> Result<Vec<Payee>, PayeesError> {
        let mut db = self.pool.begin().await.during("remove a payee")?;
        store::hold_merchant(&mut db, merchant_id).await?;
        let before = store::payees(&mut db, merchant_id).await?;
        if !store::delete_payee(&mut db, merchant_id, at).await? {
            return Err(PayeesError::Unknown);
        }
        let after = store::payees(&mut db, merchant_id).await?;
        if after.is_empty() {
            return Err(PayeesError::Last);
        }
        record(&mut db, actor, "payee.remove", merchant_id, (&before, &after)).await?;
        db.commit().await.during("remove a payee")?;
        Ok(after)
    }
}

/// Adds a payee of a merchant that is held, in the caller's database transaction.
pub(super) async fn add(
    conn: &mut PgConnection,
    actor: &Actor,
    merchant_id: MerchantId,
    at: (ChainId, Address),
    proof: &PayeeProof<'_>,
) -> Result<Vec<Payee>, PayeesError> {
    let before = store::payees(conn, merchant_id).await?;
    if !store::insert_payee(conn, merchant_id, at, proof).await? {
        return Ok(before);
    }
    if before.len() >= N_PAYEES_MAX {
        return Err(PayeesError::TooMany);
    }
    let after = store::payees(conn, merchant_id).await?;
    record(conn, actor, "payee.add", merchant_id, (&before, &after)).await?;
    Ok(after)
}

async fn record(
    conn: &mut PgConnection,
    actor: &Actor,
    action: &str,
    merchant_id: MerchantId,
    (before, after): (&[Payee], &[Payee]),
) -> Result<(), DbError> {
    let shown = |payees: &[Payee]| payees.iter().map(Payee::shown).collect::<Value>();
    let change = Change {
        action,
        subject: &merchant_id.to_string(),
        merchant_id: Some(merchant_id),
        before: Some(shown(before)),
        after: Some(shown(after)),
    };
    audit::record(conn, actor, &change).await
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;

    use super::Payees;

    #[test]
    fn a_merchant_with_addresses_is_paid_at_those_and_one_without_at_any() {
        let (base, other) = ("eip155:8453".parse().unwrap(), "eip155:1".parse().unwrap());
        let [mine, theirs] = [1, 2].map(Address::repeat_byte);
        let payees = Payees::of([(base, mine)]);
        for (chain_id, payee, is_mine) in
            [(base, mine, true), (base, theirs, false), (other, mine, false)]
        {
            assert_eq!(payees.allow(chain_id, payee), is_mine);
            assert!(Payees::ANY.allow(chain_id, payee));
            assert!(Payees::of([]).allow(chain_id, payee));
        }
    }
}
