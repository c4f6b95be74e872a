//! The rows of payees, of those who came by themselves, and of messages that were used.

use alloy::primitives::Address;
use sqlx::PgConnection;

use crate::{
    db::{self, DbError, During},
    domain::{ChainId, MerchantId},
};

use super::super::{Payee, PayeeProof, SIGN_IN_LIFE};

/// Where a merchant may be paid, oldest first.
pub(in super::super) async fn payees(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
) -> Result<Vec<Payee>, DbError> {
    let rows = sqlx::query!(
        r#"
        select chain_id, address, proof = 'sign_in' as "is_signed!",
            rfc3339(created_at) as "created_at!"
        from merchant_payee where merchant_id = $1 order by created_at, chain_id, address
        "#,
        merchant_id.as_uuid(),
    )
    .fetch_all(conn)
    .await
    .during("read a merchant's payees")?;
    rows.into_iter()
        .map(|row| {
            Ok(Payee {
                chain_id: db::chain_id(&row.chain_id)?,
                address: db::address(&row.address)?,
                is_proven: row.is_signed,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// Adds a payee; `false` if it is there already.
pub(in super::super) async fn insert_payee(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    (chain_id, address): (ChainId, Address),
    proof: &PayeeProof<'_>,
) -> Result<bool, DbError> {
    let (word, message, signature) = match proof {
        PayeeProof::SignIn { sign_in, signature } => {
            ("sign_in", Some(sign_in.text()), Some(signature.as_ref()))
        }
        PayeeProof::Operator => ("operator", None, None),
    };
    let added = sqlx::query!(
        "
        insert into merchant_payee (merchant_id, chain_id, address, proof, message, signature)
        values ($1, $2, $3, $4, $5, $6)
        on conflict do nothing
        ",
        merchant_id.as_uuid(),
        chain_id.to_string(),
        address.as_slice(),
        word,
        message,
        signature,
    )
    .execute(conn)
    .await
    .during("add a payee")?;
    Ok(added.rows_affected() == 1)
}

/// Removes a payee; `false` if it is not there.
pub(in super::super) async fn delete_payee(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    (chain_id, address): (ChainId, Address),
) -> Result<bool, DbError> {
    let removed = sqlx::query!(
        "delete from merchant_payee where merchant_id = $1 and chain_id = $2 and address = $3",
        merchant_id.as_uuid(),
        chain_id.to_string(),
        address.as_slice(),
    )
    .execute(conn)
    .await
    .during("remove a payee")?;
    Ok(removed.rows_affected() == 1)
}

/// The merchant that came by itself with that address.
pub(in super::super) async fn find_by_owner(
    conn: &mut PgConnection,
    (chain_id, owner): (ChainId, Address),
) -> Result<Option<MerchantId>, DbError> {
    let found = sqlx::query_scalar!(
        "select merchant_id from merchant where owner_chain_id = $1 and owner = $2",
        chain_id.to_string(),
        owner.as_slice(),
    )
    .fetch_optional(conn)
    .await
    .during("find a merchant by its owner")?;
    Ok(found.map(MerchantId::from_uuid))
}

/// Says whose a merchant is.
pub(in super::super) async fn set_owner(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    (chain_id, owner): (ChainId, Address),
) -> Result<(), DbError> {
    sqlx::query!(
        "update merchant set owner_chain_id = $2, owner = $3 where merchant_id = $1",
        merchant_id.as_uuid(),
        chain_id.to_string(),
        owner.as_slice(),
    )
    .execute(conn)
    .await
    .during("set a merchant's owner")?;
    Ok(())
}

/// How many merchants came by themselves since midnight, UTC.
pub(in super::super) async fn count_newcomers(conn: &mut PgConnection) -> Result<u64, DbError> {
    let n = sqlx::query_scalar!(
        r#"
        select count(*) as "n!" from merchant
        where owner is not null and created_at >= date_trunc('day', now(), 'UTC')
        "#,
    )
    .fetch_one(conn)
    .await
    .during("count newcomers")?;
    db::number(n)
}

/// Keeps others who come by themselves away until the database transaction ends: two of one owner would
/// become two merchants, and the last place of a day would be taken twice.
pub(in super::super) async fn hold_newcomers(conn: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query_scalar!("select pg_advisory_xact_lock(hashtextextended('newcomers', 0))")
        .execute(conn)
        .await
        .during("hold newcomers")?;
    Ok(())
}

/// Uses a message up; `false` if it was used before. Forgets those that are too old to be used.
pub(in super::super) async fn use_message(
    conn: &mut PgConnection,
    nonce: &str,
) -> Result<bool, DbError> {
    // Twice as long as a message can be used, for the difference between clocks.
    let life = SIGN_IN_LIFE.saturating_mul(2).as_secs_f64();
    let used = sqlx::query!(
        "
        with forgotten as (
            delete from sign_in where used_at < now() - make_interval(secs => $2) and nonce <> $1)
        insert into sign_in (nonce) values ($1) on conflict do nothing
        ",
        nonce,
        life,
    )
    .execute(conn)
    .await
    .during("use a sign-in message up")?;
    Ok(used.rows_affected() == 1)
}
