//! What the caps and the books say about a payment, in one statement.

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::{ApiKeyId, ChainId, MerchantId},
    limits::{Budget, Period, Used},
};

use super::{
    cap::{Cap, CapId, CapPeriod, Measure},
    store::{TermsRow, terms_of},
};

/// Where a payment is asked for: by whom, and in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The merchant that asks.
    pub merchant_id: MerchantId,
    /// With which key.
    pub api_key_id: ApiKeyId,
    /// On which chain.
    pub chain_id: ChainId,
    /// In which asset.
    pub asset: Address,
}

/// Who pays where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Visit {
    /// Where.
    pub place: Place,
    /// Who pays; `None` where no cap is about payers.
    pub payer: Option<Address>,
}

/// What stands about a visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Every cap that is about it, in force or not: all are counted.
    pub(super) caps: Vec<Counted>,
    /// What a coin costs in the asset, if that is known.
    pub(super) base_units_per_coin: Option<U256>,
}

/// A cap, and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) cap: Cap,
    /// In the cap's own measure.
    pub(super) used: U256,
    /// Whose counter it is.
    pub(super) counter_subject: String,
    /// When it begins anew, for people; `None` where each payment is looked at by itself.
    pub(super) begins_anew: Option<String>,
    /// What was claimed before the cap was made is not in its counter yet.
    pub(super) is_uncounted: bool,
}

impl Place {
    /// Those caps that are about the merchant or its key.
    pub(super) fn whom(&self) -> Vec<String> {
        let (merchant, key) = (self.merchant_id, self.api_key_id.as_uuid());
        vec![
            format!("merchant:{merchant}"),
            "merchant:*".to_owned(),
            format!("key:{key}@{merchant}"),
            format!("key:*@{merchant}"),
            "key:*@*".to_owned(),
        ]
    }

    /// Those that are about each payer.
    pub(super) fn whom_of_payers(&self) -> Vec<String> {
        let merchant = self.merchant_id;
        vec!["payer:*".to_owned(), format!("payer:*@{merchant}"), "payer:*@*".to_owned()]
    }
}

impl Visit {
    fn whom(&self) -> Vec<String> {
        let mut whom = self.place.whom();
        if let Some(payer) = self.payer {
            let merchant = self.place.merchant_id;
            whom.extend(self.place.whom_of_payers());
            whom.extend([
                format!("payer:{payer:#x}"),
                format!("payer:{payer:#x}@{merchant}"),
                format!("payer:{payer:#x}@*"),
            ]);
        }
        whom
    }
}

impl Standing {
    /// Nothing stands.
    pub const NOTHING: Self = Self { caps: Vec::new(), base_units_per_coin: None };

    /// Whether what a payment costs in gas matters.
    pub fn asks_for_gas(&self) -> bool {
        self.base_units_per_coin.is_some() || self.caps.iter().any(Counted::is_gas)
    }

    /// Whether a gas budget is among the caps.
    pub fn has_gas_budget(&self) -> bool {
        self.caps.iter().any(Counted::is_gas)
    }

    /// The caps whose counters lack what was claimed before them.
    pub fn uncounted(&self) -> Vec<CapId> {
        let uncounted = self.caps.iter().filter(|counted| counted.is_uncounted);
        uncounted.map(|counted| counted.cap.cap_id).collect()
    }

    /// What a claim is counted in.
    pub fn budgets(&self) -> Vec<Budget> {
        self.windowed().map(|(counted, period)| counted.budget(period)).collect()
    }

    /// As it stands with what was counted of [`Self::budgets`], the asked payment included.
    #[must_use]
    pub fn recounted(mut self, all: &[Used], amount: U256) -> Self {
        let counted = self.caps.iter_mut().filter(|counted| counted.period().is_some());
        for (counted, used) in counted.zip(all) {
            counted.used = match counted.cap.terms.measure() {
                Measure::Count { .. } => U256::from(used.n_payments.saturating_sub(1)),
                _ => used.amount.base_units().saturating_sub(amount),
            };
        }
        self
    }

    /// As it stands with what its gas budgets have used, in the order of [`Self::gas_subjects`].
    #[must_use]
    pub fn with_gas(mut self, all: &[U256]) -> Self {
        let budgets = self.caps.iter_mut().filter(|counted| counted.is_gas());
        for (counted, used) in budgets.zip(all) {
            counted.used = *used;
        }
        self
    }

    /// Whose gas is budgeted, one for each budget.
    pub fn gas_subjects(&self) -> Vec<String> {
        let budgets = self.caps.iter().filter(|counted| counted.is_gas());
        budgets.map(|counted| counted.counter_subject.clone()).collect()
    }

    fn windowed(&self) -> impl Iterator<Item = (&Counted, Period)> {
        self.caps.iter().filter_map(|counted| Some((counted, counted.period()?)))
    }
}

impl Counted {
    pub(super) const fn is_gas(&self) -> bool {
        matches!(self.cap.terms.measure(), Measure::Gas { .. })
    }

    /// The window of its counter, if it has one. Gas is counted elsewhere.
    const fn period(&self) -> Option<Period> {
        match (self.cap.terms.measure(), self.cap.terms.period()) {
            (Measure::Gas { .. }, _) | (_, CapPeriod::Payment) => None,
            (_, CapPeriod::Hour) => Some(Period::Hour),
            (_, CapPeriod::Day) => Some(Period::Day),
        }
    }

    fn budget(&self, period: Period) -> Budget {
        let (rule_id, subject) = (self.cap.cap_id.as_uuid(), self.counter_subject.clone());
        Budget { rule_id, subject, period }
    }
}

/// Reads what stands about a visit. What was claimed before a cap was made is in it, be it counted or not.
#[allow(clippy::too_many_lines, reason = "one statement, so that it is of one moment")]
pub async fn standing(conn: &mut PgConnection, visit: &Visit) -> Result<Standing, DbError> {
    let mut standing = Standing::NOTHING;
    for row in rows(conn, visit).await? {
        standing.base_units_per_coin = row.price.as_deref().map(db::u256).transpose()?;
        if let Some(cap_id) = row.cap_id {
            standing.caps.push(row.counted(CapId::from_uuid(cap_id))?);
        }
    }
    Ok(standing)
}

/// One row for each cap; one without a cap where there is none.
struct Row {
    price: Option<String>,
    cap_id: Option<Uuid>,
    set_by: Option<String>,
    subject: Option<String>,
    merchant_id: Option<Uuid>,
    api_key_id: Option<Uuid>,
    payer: Option<Vec<u8>>,
    measure: Option<String>,
    period: Option<String>,
    chain_id: Option<String>,
    asset: Option<Vec<u8>>,
    most: Option<String>,
    used: Option<String>,
    counter_subject: Option<String>,
    begins_anew: Option<String>,
    is_uncounted: Option<bool>,
}

impl Row {
    fn counted(self, cap_id: CapId) -> Result<Counted, DbError> {
        let (set_by, terms) = terms_of(TermsRow {
            set_by: self.set_by.unwrap_or_default(),
            subject: self.subject.unwrap_or_default(),
            merchant_id: self.merchant_id,
            api_key_id: self.api_key_id,
            payer: self.payer,
            measure: self.measure.unwrap_or_default(),
            period: self.period.unwrap_or_default(),
            chain_id: self.chain_id,
            asset: self.asset,
        })?;
        let most = db::u256(self.most.as_deref().unwrap_or_default())?;
        Ok(Counted {
            cap: Cap { cap_id, set_by, terms, most },
            // A sum that is no number of 256 bits leaves no room.
            used: db::u256(self.used.as_deref().unwrap_or_default()).unwrap_or(U256::MAX),
            counter_subject: self.counter_subject.unwrap_or_default(),
            begins_anew: self.begins_anew,
            is_uncounted: self.is_uncounted.unwrap_or_default(),
        })
    }
}

#[allow(clippy::too_many_lines, reason = "one statement: a claim without caps has one round trip")]
async fn rows(conn: &mut PgConnection, visit: &Visit) -> Result<Vec<Row>, DbError> {
    let place = &visit.place;
    let payer = visit.payer.map(|payer| payer.to_vec());
    sqlx::query_as!(
        Row,
        r#"
        select price.base_units_per_coin::text as price, cap.cap_id as "cap_id?",
            cap.set_by as "set_by?", cap.subject as "subject?", cap.merchant_id,
            cap.api_key_id, cap.payer, cap.measure as "measure?", cap.period as "period?",
            cap.chain_id, cap.asset, cap.most::text as most,
            counter_subject as "counter_subject?",
            to_char(ends_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as begins_anew,
            is_young and counter.counter_id is null as is_uncounted,
            case cap.measure
                when 'amount' then coalesce(counter.amount, 0) - released.amount
                    + coalesce(at_merchant.amount, 0) + coalesce(of_payer.amount, 0)
                when 'count' then coalesce(counter.n_payments, 0) - released.n_payments
                    + coalesce(at_merchant.n_payments, 0) + coalesce(of_payer.n_payments, 0)
                else coalesce(gas.posted, 0) + coalesce(gas.reserved, 0)
            end::text as used
        from (values (1)) as always (there)
            left join asset_price price on price.chain_id = $5 and price.asset = $6
            left join cap on cap.whom = any($1) and (cap.chain_id is null or cap.chain_id = $5)
                and (cap.asset is null or cap.asset = $6)
            left join lateral (
                select case cap.subject
                        when 'merchant' then 'merchant:' || $2::uuid
                        when 'key' then 'key:' || $3::uuid
                        when 'payer' then 'payer:0x' || encode($4::bytea, 'hex')
                        else 'payer:0x' || encode($4::bytea, 'hex') || '@' || $2::uuid
                    end as counter_subject,
                    case cap.period when 'hour' then date_trunc('hour', now(), 'UTC')
                        when 'day' then date_trunc('day', now(), 'UTC') end as starts_at,
                    case cap.period
                        when 'hour' then date_trunc('hour', now(), 'UTC') + interval '1 hour'
                        when 'day' then date_trunc('day', now(), 'UTC') + interval '24 hours'
                    end as ends_at
                ) as whose on true
            left join budget_counter counter on counter.rule_id = cap.cap_id
                and counter.subject = counter_subject and counter.window_start = starts_at
            left join lateral (select measure <> 'gas' and created_at > starts_at as is_young)
                as age on true
            left join lateral (
                select coalesce(sum(amount), 0) as amount, count(*) as n_payments from budget_hold
                where budget_hold.counter_id = counter.counter_id and is_released
                ) as released on true
            left join lateral (
                select sum(amount) as amount, count(*) as n_payments from settlement
                where is_young and counter.counter_id is null and cap.subject in ('merchant', 'key')
                    and merchant_id = $2 and created_at >= starts_at and created_at < ends_at
                    and (cap.subject = 'merchant' or api_key_id = $3)
                    and (cap.chain_id is null or chain_id = cap.chain_id)
                    and (cap.asset is null or asset = cap.asset) and status <> 'failed'
                ) as at_merchant on true
            left join lateral (
                select sum(amount) as amount, count(*) as n_payments from settlement
                where is_young and counter.counter_id is null
                    and cap.subject in ('payer', 'payer_at_merchant')
                    and payer = $4 and created_at >= starts_at and created_at < ends_at
                    and (cap.subject = 'payer' or merchant_id = $2)
                    and (cap.chain_id is null or chain_id = cap.chain_id)
                    and (cap.asset is null or asset = cap.asset) and status <> 'failed'
                ) as of_payer on true
            left join lateral (
                select
                    (select wei from gas_spent where cap.measure = 'gas' and chain_id = $5
                        and gas_spent.subject = counter_subject
                        and day = (now() at time zone 'UTC')::date) as posted,
                    case cap.subject
                        when 'merchant' then (select sum(gas_reserved_wei) from settlement
                            where cap.measure = 'gas' and chain_id = $5 and merchant_id = $2
                                and status in ('claimed', 'submitted') and gas_reserved_wei > 0)
                        else (select sum(gas_reserved_wei) from settlement
                            where cap.measure = 'gas' and chain_id = $5 and payer = $4
                                and status in ('claimed', 'submitted') and gas_reserved_wei > 0)
                    end as reserved
                ) as gas on true
        order by cap.cap_id
        "#,
        &visit.whom(),
        place.merchant_id.as_uuid(),
        place.api_key_id.as_uuid(),
        payer.as_deref(),
        place.chain_id.to_string(),
        place.asset.as_slice(),
    )
    .fetch_all(conn)
    .await
    .during("read the caps")
}

/// Whether anything at all is about a place, and whether it is about payers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concern {
    /// No cap and no floor.
    Nothing,
    /// Caps or a floor, but none that is about payers who are not named.
    Place,
    /// Caps that are about each payer.
    Payers,
}

/// What caps and floors are there for a place, those that name a payer aside.
pub(super) async fn concern(conn: &mut PgConnection, place: &Place) -> Result<Concern, DbError> {
    let found = sqlx::query!(
        r#"
        select exists (select from asset_price where chain_id = $3 and asset = $4)
                or exists (select from cap where whom = any($1) and (chain_id is null or chain_id = $3)
                    and (asset is null or asset = $4)) as "is_about_place!",
            exists (select from cap where whom = any($2) and (chain_id is null or chain_id = $3)
                and (asset is null or asset = $4)) as "is_about_payers!"
        "#,
        &place.whom(),
        &place.whom_of_payers(),
        place.chain_id.to_string(),
        place.asset.as_slice(),
    )
    .fetch_one(conn)
    .await
    .during("look for caps")?;
    Ok(match (found.is_about_payers, found.is_about_place) {
        (true, _) => Concern::Payers,
        (false, true) => Concern::Place,
        (false, false) => Concern::Nothing,
    })
}

/// The payers that caps name, at most `n_max` of them.
pub(super) async fn named_payers(
    conn: &mut PgConnection,
    n_max: i64,
) -> Result<Vec<Address>, DbError> {
    let named = sqlx::query_scalar!(
        r#"select distinct payer as "payer!" from cap where payer is not null limit $1"#,
        n_max,
    )
    .fetch_all(conn)
    .await
    .during("read whom caps name")?;
    named.iter().map(|payer| db::address(payer)).collect()
}
