//! What is asked about merchant and key when a payment is claimed.

use sqlx::PgConnection;

use crate::{
    db::{DbError, During},
    domain::{ApiKeyId, MerchantId},
};

/// Whether a merchant may claim payments by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Good,
    /// The merchant is suspended or closed.
    Stopped,
    /// The key was revoked, or has expired.
    KeyGone,
}

/// Whether the merchant may claim by that key, in the claim's database transaction.
///
/// It takes no lock. A suspension or revocation that commits after this statement has begun does not read
/// what was claimed, so the two stand as if the claim had come first, which is what "claimed before" means;
/// and the claim commits within the time limits of its statements. A share lock would make every claim of
/// a busy merchant write to the merchant's row, and to a list of those who hold it.
pub async fn standing(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    api_key_id: ApiKeyId,
) -> Result<Standing, DbError> {
    let row = sqlx::query!(
        r#"
        select merchant.status = 'active' as "is_active!",
            revoked_at is null and (expires_at is null or expires_at > now()) as "is_valid!"
        from api_key join merchant using (merchant_id)
        where api_key_id = $1 and merchant_id = $2
        "#,
        api_key_id.as_uuid(),
        merchant_id.as_uuid(),
    )
    .fetch_optional(conn)
    .await
    .during("look whether a merchant may claim")?;
    Ok(match row {
        Some(row) if !row.is_active => Standing::Stopped,
        Some(row) if row.is_valid => Standing::Good,
        _ => Standing::KeyGone,
    })
}
