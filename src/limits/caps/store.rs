//! The rows of caps.

use alloy::primitives::{Address, U256};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    audit::{self, Actor, Change},
    db::{self, DbError, During},
    domain::{ApiKeyId, MerchantId},
    limits::change_rules,
};

use super::cap::{Cap, CapId, CapPeriod, CapTerms, InvalidCap, Measure, Setter, Subject};

/// How many of those who use a cap are told, the heaviest first.
const N_USERS_MAX: i64 = 100;

/// Why a cap is not set.
#[derive(Debug, thiserror::Error)]
pub enum CapError {
    /// It makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidCap),
    /// It is about others than the merchant that sets it.
    #[error("a merchant caps itself, its keys, and payers at it")]
    NotYours,
    /// Nobody is called so.
    #[error("there is no such merchant")]
    NoSuchMerchant,
    /// The merchant has no such key.
    #[error("there is no such key of that merchant")]
    NoSuchKey,
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Who looks at caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// An operator sees all.
    Operator,
    /// A merchant sees its own, and those of the operator that are about it and no payer elsewhere.
    Merchant(MerchantId),
}

/// What somebody has used of a cap, in the window that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Whose: `merchant:<id>`, `key:<id>`, `payer:0x…` or `payer:0x…@<merchant id>`.
    pub subject: String,
    /// In the cap's own measure.
    pub used: U256,
    /// When it begins anew.
    pub begins_anew: String,
}

impl Usage {
    /// The usage as the API and the command line tell it.
    pub fn told(&self) -> Value {
        json!({
            "of": self.subject,
            "used": self.used.to_string(),
            "beginsAnewAt": self.begins_anew,
        })
    }
}

/// Sets a cap, or changes the limit of the one that is about the same.
pub async fn set_cap(
    conn: &mut PgConnection,
    actor: &Actor,
    set_by: Setter,
    terms: CapTerms,
    most: U256,
) -> Result<Cap, CapError> {
    check(conn, set_by, terms.subject()).await?;
    change_rules(conn).await?;
    let (subject, measure) = (terms.subject(), terms.measure());
    let row = sqlx::query!(
        r#"
        with former as (
            select cap_id, most from cap
            where set_by = $2 and subject = $3 and measure = $7 and period = $8
                and merchant_id is not distinct from $4 and api_key_id is not distinct from $5
                and payer is not distinct from $6 and chain_id is not distinct from $9
                and asset is not distinct from $10)
        insert into cap (cap_id, set_by, subject, merchant_id, api_key_id, payer, measure, period,
            chain_id, asset, most)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::numeric)
        on conflict on constraint cap_key do update set most = excluded.most
        returning cap_id, (select most::text from former) as former
        "#,
        Uuid::now_v7(),
        set_by.as_str(),
        subject.as_str(),
        subject.merchant_id().map(MerchantId::as_uuid),
        subject.api_key_id().map(ApiKeyId::as_uuid),
        subject.payer().map(|payer| payer.to_vec()),
        measure.as_str(),
        terms.period().as_str(),
        measure.chain_id().map(|chain_id| chain_id.to_string()),
        measure.asset().map(|asset| asset.to_vec()),
        most.to_string(),
    )
    .fetch_one(&mut *conn)
    .await
    .during("set a cap")?;
    let cap = Cap { cap_id: CapId::from_uuid(row.cap_id), set_by, terms, most };
    let former = row.former.as_deref().map(db::u256).transpose()?;
    let before = former.map(|most| Cap { most, ..cap }.told());
    record(conn, actor, "cap.set", &cap, before, Some(cap.told())).await?;
    Ok(cap)
}

/// Removes a cap that the setter may remove: its own, or any if it is the operator. `None` if there is none.
pub async fn remove_cap(
    conn: &mut PgConnection,
    actor: &Actor,
    setter: Setter,
    cap_id: CapId,
) -> Result<Option<Cap>, DbError> {
    change_rules(conn).await?;
    let viewer = match setter {
        Setter::Operator => Viewer::Operator,
        Setter::Merchant(merchant_id) => Viewer::Merchant(merchant_id),
    };
    let is_its_own = |cap: &Cap| setter == Setter::Operator || cap.set_by == setter;
    let Some(cap) = cap(conn, viewer, cap_id).await?.filter(is_its_own) else { return Ok(None) };
    sqlx::query!("delete from cap where cap_id = $1", cap_id.as_uuid())
        .execute(&mut *conn)
        .await
        .during("remove a cap")?;
    record(conn, actor, "cap.remove", &cap, Some(cap.told()), None).await?;
    Ok(Some(cap))
}

/// A cap, if the viewer may see it.
pub async fn cap(
    conn: &mut PgConnection,
    viewer: Viewer,
    cap_id: CapId,
) -> Result<Option<Cap>, DbError> {
    Ok(rows(conn, viewer, Some(cap_id), None, 1).await?.pop())
}

/// The caps that the viewer may see, in the order of their ids, after the one that is given.
pub async fn caps(
    conn: &mut PgConnection,
    viewer: Viewer,
    after: Option<CapId>,
    n_max: i64,
) -> Result<Vec<Cap>, DbError> {
    rows(conn, viewer, None, after, n_max).await
}

async fn rows(
    conn: &mut PgConnection,
    viewer: Viewer,
    one: Option<CapId>,
    after: Option<CapId>,
    n_max: i64,
) -> Result<Vec<Cap>, DbError> {
    let rows = sqlx::query!(
        r#"
        select cap_id, set_by, subject, merchant_id, api_key_id, payer, measure, period, chain_id,
            asset, most::text as "most!"
        from cap
        where ($1::uuid is null or merchant_id = $1
                or (merchant_id is null and payer is null and subject <> 'payer'))
            and ($2::uuid is null or cap_id = $2) and ($3::uuid is null or cap_id > $3)
        order by cap_id
        limit $4
        "#,
        match viewer {
            Viewer::Operator => None,
            Viewer::Merchant(merchant_id) => Some(merchant_id.as_uuid()),
        },
        one.map(CapId::as_uuid),
        after.map(CapId::as_uuid),
        n_max,
    )
    .fetch_all(conn)
    .await
    .during("list caps")?;
    rows.into_iter()
        .map(|row| {
            let (set_by, terms) = terms_of(TermsRow {
                set_by: row.set_by,
                subject: row.subject,
                merchant_id: row.merchant_id,
                api_key_id: row.api_key_id,
                payer: row.payer,
                measure: row.measure,
                period: row.period,
                chain_id: row.chain_id,
                asset: row.asset,
            })?;
            let cap_id = CapId::from_uuid(row.cap_id);
            Ok(Cap { cap_id, set_by, terms, most: db::u256(&row.most)? })
        })
        .collect()
}

/// What is used of a cap in the window that runs, by those whom the viewer may see. Of gas budgets, what was
/// posted.
pub async fn usage(
    conn: &mut PgConnection,
    viewer: Viewer,
    cap_id: CapId,
) -> Result<Vec<Usage>, DbError> {
    let merchant_id = match viewer {
        Viewer::Operator => None,
        Viewer::Merchant(merchant_id) => Some(merchant_id.as_uuid()),
    };
    let used = sqlx::query!(
        r#"
        with starting as (
            select cap.*, date_trunc(period, now(), 'UTC') as starts_at,
                date_trunc(period, now(), 'UTC')
                    + case period when 'hour' then interval '1 hour' else interval '24 hours' end
                    as ends_at
            from cap where cap_id = $1 and period <> 'payment'),
        used as (
            select counter.subject, ends_at, case measure
                when 'count' then n_payments - (select count(*) from budget_hold
                    where budget_hold.counter_id = counter.counter_id and is_released)
                else amount - (select coalesce(sum(budget_hold.amount), 0) from budget_hold
                    where budget_hold.counter_id = counter.counter_id and is_released) end as used
            from starting join budget_counter counter
                on rule_id = cap_id and window_start = starts_at and measure <> 'gas'
            union all
            select gas_spent.subject, ends_at, wei from starting join gas_spent
                on measure = 'gas' and gas_spent.chain_id = starting.chain_id
                    and day = (now() at time zone 'UTC')::date
                    and gas_spent.subject like starting.subject || ':%'
                    and (starting.merchant_id is null
                        or gas_spent.subject = 'merchant:' || starting.merchant_id)
                    and (starting.payer is null
                        or gas_spent.subject = 'payer:0x' || encode(starting.payer, 'hex')))
        select subject as "subject!", used::text as "used!",
            to_char(ends_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as "begins_anew!"
        from used
        where used > 0 and ($2::uuid is null or subject = 'merchant:' || $2
            or subject like '%@' || $2
            or subject in (select 'key:' || api_key_id from api_key where merchant_id = $2))
        order by used.used desc, subject
        limit $3
        "#,
        cap_id.as_uuid(),
        merchant_id,
        N_USERS_MAX,
    )
    .fetch_all(conn)
    .await
    .during("read what is used of a cap")?;
    used.into_iter()
        .map(|row| {
            let used = db::u256(&row.used).unwrap_or(U256::MAX);
            Ok(Usage { subject: row.subject, used, begins_anew: row.begins_anew })
        })
        .collect()
}

/// Whose key it is; `None` if there is no such key, or if it is an operator's.
pub async fn key_merchant(
    conn: &mut PgConnection,
    api_key_id: ApiKeyId,
) -> Result<Option<MerchantId>, DbError> {
    let merchant_id = sqlx::query_scalar!(
        "select merchant_id from api_key where api_key_id = $1",
        api_key_id.as_uuid()
    )
    .fetch_optional(conn)
    .await
    .during("find a key's merchant")?;
    Ok(merchant_id.flatten().map(MerchantId::from_uuid))
}

async fn check(conn: &mut PgConnection, set_by: Setter, subject: Subject) -> Result<(), CapError> {
    if let Setter::Merchant(setter) = set_by
        && subject.merchant_id() != Some(setter)
    {
        return Err(CapError::NotYours);
    }
    if let Some(api_key_id) = subject.api_key_id()
        && key_merchant(conn, api_key_id).await? != subject.merchant_id()
    {
        return Err(CapError::NoSuchKey);
    }
    let Some(merchant_id) = subject.merchant_id() else { return Ok(()) };
    let exists = sqlx::query_scalar!(
        r#"select exists (select from merchant where merchant_id = $1) as "exists!""#,
        merchant_id.as_uuid()
    )
    .fetch_one(conn)
    .await
    .during("find a merchant")?;
    if exists { Ok(()) } else { Err(CapError::NoSuchMerchant) }
}

async fn record(
    conn: &mut PgConnection,
    actor: &Actor,
    action: &str,
    cap: &Cap,
    before: Option<Value>,
    after: Option<Value>,
) -> Result<(), DbError> {
    let (subject, merchant_id) = (cap.cap_id.to_string(), cap.terms.subject().merchant_id());
    audit::record(conn, actor, &Change { action, subject: &subject, merchant_id, before, after })
        .await
}

/// The columns that say what a cap is about.
pub(super) struct TermsRow {
    pub(super) set_by: String,
    pub(super) subject: String,
    pub(super) merchant_id: Option<Uuid>,
    pub(super) api_key_id: Option<Uuid>,
    pub(super) payer: Option<Vec<u8>>,
    pub(super) measure: String,
    pub(super) period: String,
    pub(super) chain_id: Option<String>,
    pub(super) asset: Option<Vec<u8>>,
}

/// What they say.
pub(super) fn terms_of(row: TermsRow) -> Result<(Setter, CapTerms), DbError> {
    let address = |bytes: Option<Vec<u8>>| bytes.as_deref().map(db::address).transpose();
    let merchant_id = row.merchant_id.map(MerchantId::from_uuid);
    let payer: Option<Address> = address(row.payer)?;
    let subject = match row.subject.as_str() {
        "merchant" => Some(Subject::Merchant(merchant_id)),
        "key" => Some(Subject::Key(merchant_id, row.api_key_id.map(ApiKeyId::from_uuid))),
        "payer" => Some(Subject::Payer(payer)),
        "payer_at_merchant" => Some(Subject::PayerAtMerchant(payer, merchant_id)),
        _ => None,
    };
    let chain_id = row.chain_id.as_deref().map(db::chain_id).transpose()?;
    let measure = match (row.measure.as_str(), chain_id, address(row.asset)?) {
        ("amount", Some(chain_id), Some(asset)) => Some(Measure::Amount { chain_id, asset }),
        ("count", chain_id, asset) => Some(Measure::Count { chain_id, asset }),
        ("gas", Some(chain_id), None) => Some(Measure::Gas { chain_id }),
        _ => None,
    };
    let set_by = match (row.set_by.as_str(), merchant_id) {
        ("operator", _) => Some(Setter::Operator),
        ("merchant", Some(merchant_id)) => Some(Setter::Merchant(merchant_id)),
        _ => None,
    };
    let terms = subject.zip(measure).zip(CapPeriod::parse(&row.period));
    let terms =
        terms.and_then(|((subject, measure), period)| CapTerms::new(subject, measure, period).ok());
    // The constraints of the table allow nothing else.
    set_by
        .zip(terms)
        .ok_or_else(|| sqlx::Error::Decode("unreadable cap".into()))
        .during("read a cap")
}
