//! Reading what was recorded, the newest first.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    db::{DbError, During},
    domain::MerchantId,
};

/// One record. Times are RFC 3339, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number; later ones are greater.
    pub audit_id: i64,
    /// When.
    pub created_at: String,
    /// `command`, `operator`, `merchant`, `payee`, `payer` or `service`.
    pub actor_kind: String,
    /// Who, in the words of that kind.
    pub actor: String,
    /// From where.
    pub origin: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// Whose it is, where it is a merchant's.
    pub merchant_id: Option<Uuid>,
    /// JSON, before the change.
    pub before: Option<String>,
    /// JSON, after it.
    pub after: Option<String>,
}

impl Record {
    /// The JSON of the API.
    pub fn shown(&self) -> Value {
        let read = |text: &Option<String>| {
            text.as_ref().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)))
        };
        json!({
            "auditId": self.audit_id,
            "createdAt": self.created_at,
            "actorKind": self.actor_kind,
            "actor": self.actor,
            "origin": self.origin,
            "action": self.action,
            "subject": self.subject,
            "merchantId": self.merchant_id,
            "before": read(&self.before),
            "after": read(&self.after),
        })
    }
}

/// Which records are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this merchant's things.
    pub merchant_id: Option<MerchantId>,
    /// Only about this thing.
    pub subject: Option<String>,
}

/// The records in a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    pool: PgPool,
}

impl Records {
    /// The records in that database.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The newest records, or those that follow after the one with the number `after`.
    pub async fn page(
        &self,
        filter: &Filter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Record>, DbError> {
        sqlx::query_as!(
            Record,
            r#"
            select audit_id, rfc3339(created_at) as "created_at!", actor_kind, actor, origin, action,
                subject, merchant_id, before, after
            from audit
            where audit_id < $1 and ($2::uuid is null or merchant_id = $2)
                and ($3::text is null or subject = $3)
            order by audit_id desc limit $4
            "#,
            after.unwrap_or(i64::MAX),
            filter.merchant_id.map(MerchantId::as_uuid),
            filter.subject,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await
        .during("read the record of changes")
    }
}
