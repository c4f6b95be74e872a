//! The rows of what owners signed.

use alloy::primitives::{Address, Bytes};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::UnixTime,
};

use super::{Document, Ending, InForce, Kind, Subject, Unreadable, read::read_policy_text};

/// Whoever registers something holds it, so that `change_id` grows in the order of commits.
const REGISTRATION_LOCK: i64 = 0x7175_6974_706f_6c69;

/// A document about to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDocument<'a> {
    /// Its id.
    pub policy_id: Uuid,
    /// The id of everything that was ever signed about the same account and asset.
    pub account_id: Uuid,
    /// What was signed.
    pub document: &'a Document,
    /// Who may sign what comes next.
    pub owner: Address,
    /// Who signed this.
    pub signer: Address,
    /// The evidence.
    pub signature: &'a Bytes,
}

/// The newest document about a subject, if there ever was one.
pub async fn in_force(
    conn: &mut PgConnection,
    subject: Subject,
) -> Result<Option<InForce>, DbError> {
    let row = sqlx::query!(
        r#"
        select policy_id, account_id, nonce::text as "nonce!", kind, owner, document,
            floor(extract(epoch from created_at))::bigint as "registered_at!"
        from spending_policy where chain_id = $1 and account = $2 and asset = $3
        order by spending_policy.nonce desc limit 1
        "#,
        subject.chain_id.to_string(),
        subject.account.as_slice(),
        subject.asset.as_slice(),
    )
    .fetch_optional(conn)
    .await
    .during("read a spending policy")?;
    let Some(row) = row else { return Ok(None) };
    let unreadable = |problem: Unreadable| DbError {
        operation: "read a spending policy",
        source: sqlx::Error::Decode(problem.into()),
    };
    let ending = Ending { subject, nonce: db::u256(&row.nonce)? };
    let document = match Kind::ALL.into_iter().find(|kind| kind.as_str() == row.kind) {
        Some(Kind::Revocation) => Document::Revocation(ending),
        Some(Kind::Release) => Document::Release(ending),
        Some(Kind::Policy) | None => {
            Document::Policy(read_policy_text(&row.document, subject.chain_id).map_err(unreadable)?)
        }
    };
    Ok(Some(InForce {
        document,
        policy_id: row.policy_id,
        account_id: row.account_id,
        owner: db::address(&row.owner)?,
        registered_at: UnixTime::from_seconds(db::number(row.registered_at)?),
    }))
}

/// Waits for other registrations, and keeps them away until the database transaction ends. After every other
/// lock.
pub async fn hold_registration(conn: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query_scalar!("select pg_advisory_xact_lock($1)", REGISTRATION_LOCK)
        .execute(conn)
        .await
        .during("hold the registration of spending policies")?;
    Ok(())
}

/// Stores a document. Its subject and the registration are held.
pub async fn insert(conn: &mut PgConnection, new: &NewDocument<'_>) -> Result<(), DbError> {
    let subject = new.document.subject();
    sqlx::query!(
        "
        insert into spending_policy (policy_id, account_id, chain_id, account, asset, nonce, kind, owner,
            signer, document, signature)
        values ($1, $2, $3, $4, $5, $6::text::numeric, $7, $8, $9, $10, $11)
        ",
        new.policy_id,
        new.account_id,
        subject.chain_id.to_string(),
        subject.account.as_slice(),
        subject.asset.as_slice(),
        new.document.nonce().to_string(),
        new.document.kind().as_str(),
        new.owner.as_slice(),
        new.signer.as_slice(),
        new.document.to_json().to_string(),
        new.signature.as_ref(),
    )
    .execute(conn)
    .await
    .during("store a spending policy")?;
    Ok(())
}

/// The subjects of some documents that came after one, and which came last.
pub(super) async fn registered_after(
    conn: &mut PgConnection,
    change_id: i64,
    n_max: i64,
) -> Result<Vec<(i64, Subject)>, DbError> {
    let rows = sqlx::query!(
        "
        select change_id, chain_id, account, asset from spending_policy
        where change_id > $1 order by change_id limit $2
        ",
        change_id,
        n_max,
    )
    .fetch_all(conn)
    .await
    .during("read which accounts have spending policies")?;
    let subject = |chain_id: &str, account: &[u8], asset: &[u8]| -> Result<Subject, DbError> {
        Ok(Subject {
            chain_id: db::chain_id(chain_id)?,
            account: db::address(account)?,
            asset: db::address(asset)?,
        })
    };
    rows.iter()
        .map(|row| Ok((row.change_id, subject(&row.chain_id, &row.account, &row.asset)?)))
        .collect()
}
