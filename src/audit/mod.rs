//! Who changed what in the house: merchants, keys, limits, lists, policies.
//!
//! A record is written in the database transaction of the change, so there is no change without one.
//! Payments are not recorded here; they have events.

mod records;

use serde_json::Value;
use sqlx::PgConnection;

use crate::{
    db::{DbError, During},
    domain::{ApiKeyId, MerchantId},
};

pub use records::{Filter, Record, Records};

/// Whoever changes something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    kind: &'static str,
    name: String,
    origin: String,
}

/// What is longer is cut; the table's limit.
const MAX_CHARS: usize = 200;

impl Actor {
    /// Somebody at the command line of `host`.
    pub fn command(user: &str, host: &str) -> Self {
        Self::new("command", user, host)
    }

    /// Whoever holds that operator's key.
    pub fn operator(api_key_id: ApiKeyId, origin: &str) -> Self {
        Self::new("operator", &api_key_id.as_uuid().to_string(), origin)
    }

    /// Whoever holds that merchant's key.
    pub fn merchant(api_key_id: ApiKeyId, origin: &str) -> Self {
        Self::new("merchant", &api_key_id.as_uuid().to_string(), origin)
    }

    /// Whoever proved control of an address to be paid at.
    pub fn payee(address: &str, origin: &str) -> Self {
        Self::new("payee", address, origin)
    }

    /// The owner of a paying wallet, by a signature.
    pub fn payer(address: &str, origin: &str) -> Self {
        Self::new("payer", address, origin)
    }

    /// The service, by itself.
    pub fn service(replica: &str) -> Self {
        Self::new("service", "quittance", replica)
    }

    fn new(kind: &'static str, name: &str, origin: &str) -> Self {
        let kept = |text: &str| match text {
            "" => "unknown".to_owned(),
            text => text.chars().take(MAX_CHARS).collect(),
        };
        Self { kind, name: kept(name), origin: kept(origin) }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<'a> {
    /// What was done, such as `merchant.suspend`.
    pub action: &'a str,
    /// To what: an id, or whatever names it.
    pub subject: &'a str,
    /// Whose it is, where it is a merchant's.
    pub merchant_id: Option<MerchantId>,
    /// What it was; `None` if it was not there. Never holds a key or a signature.
    pub before: Option<Value>,
    /// What it is; `None` if it is not any more.
    pub after: Option<Value>,
}

/// Records a change, in the database transaction that makes it.
pub async fn record(
    conn: &mut PgConnection,
    actor: &Actor,
    change: &Change<'_>,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        insert into audit (actor_kind, actor, origin, action, subject, merchant_id, before, after)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        ",
        actor.kind,
        actor.name,
        actor.origin,
        change.action,
        change.subject,
        change.merchant_id.map(MerchantId::as_uuid),
        change.before.as_ref().map(Value::to_string),
        change.after.as_ref().map(Value::to_string),
    )
    .execute(conn)
    .await
    .during("record a change")?;
    Ok(())
}
