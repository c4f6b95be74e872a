//! From a hash to whoever holds the key.

use std::{str::FromStr as _, time::Instant};

use sqlx::PgConnection;

use crate::{
    db::{self, DbError, During},
    domain::{ApiKeyId, Depth, KeyMode, MerchantId, UnixTime},
};

use super::{
    super::{Asset, Assets, Caller, KeyHash, MerchantStatus, Operator, Payees, Principal, Scopes},
    parse_rates, unreadable,
};

const OPERATION: &str = "look up an API key";

/// A key that somebody holds.
#[derive(Debug)]
pub(in super::super) struct Known {
    /// Who.
    pub(in super::super) principal: Principal,
    /// When it ends.
    pub(in super::super) expires_at: Option<UnixTime>,
    /// When the database was asked.
    pub(in super::super) asked_at: Instant,
}

/// Whoever holds the key with that hash, unless it was revoked.
pub(in super::super) async fn find_principal(
    conn: &mut PgConnection,
    hash: KeyHash,
) -> Result<Option<Known>, DbError> {
    let asked_at = Instant::now();
    let row = sqlx::query!(
        r#"
        select api_key_id, key_hash, merchant_id, mode = 'live' as "is_live!", scopes,
            floor(extract(epoch from expires_at))::bigint as expires_at,
            wait_for as "wait_for?", merchant.status as "status?",
            array(select chain_id || '/0x' || encode(asset, 'hex') from merchant_asset
                where merchant_asset.merchant_id = api_key.merchant_id) as "assets!",
            array(select class || ' ' || per_second || '/' || burst from merchant_rate
                where merchant_rate.merchant_id = api_key.merchant_id) as "rates!",
            array(select chain_id from merchant_payee
                where merchant_payee.merchant_id = api_key.merchant_id
                order by chain_id, address) as "payee_chains!",
            array(select address from merchant_payee
                where merchant_payee.merchant_id = api_key.merchant_id
                order by chain_id, address) as "payees!"
        from api_key left join merchant using (merchant_id)
        where key_hash = $1 and revoked_at is null
        "#,
        hash.as_bytes(),
    )
    .fetch_optional(conn)
    .await
    .during(OPERATION)?;
    let Some(row) = row.filter(|row| hash.is(&row.key_hash)) else { return Ok(None) };
    let api_key_id = ApiKeyId::from_uuid(row.api_key_id);
    let mode = if row.is_live { KeyMode::Live } else { KeyMode::Test };
    let scopes = unreadable(Scopes::of(row.scopes.iter().map(String::as_str)), OPERATION)?;
    let expires_at =
        row.expires_at.map(|at| db::number(at).map(UnixTime::from_seconds)).transpose()?;
    let principal = match (row.merchant_id, row.status, row.wait_for) {
        (Some(merchant_id), Some(status), Some(wait_for)) => {
            let assets = row.assets.iter().map(|asset| Asset::from_str(asset));
            let assets = assets.collect::<Result<_, _>>().and_then(Assets::of);
            let payees = row.payee_chains.iter().zip(&row.payees);
            let payees: Vec<_> = payees
                .map(|(chain, payee)| Ok((db::chain_id(chain)?, db::address(payee)?)))
                .collect::<Result<_, DbError>>()?;
            Principal::Merchant(Caller {
                merchant_id: MerchantId::from_uuid(merchant_id),
                api_key_id,
                mode,
                scopes,
                status: MerchantStatus::parse(&status).unwrap_or(MerchantStatus::Closed),
                wait_for: unreadable(Depth::parse(&wait_for), OPERATION)?,
                assets: unreadable(assets, OPERATION)?,
                rates: parse_rates(&row.rates, OPERATION)?,
                payees: Payees::of(payees),
            })
        }
        _ => Principal::Operator(Operator { api_key_id, mode, scopes }),
    };
    Ok(Some(Known { principal, expires_at, asked_at }))
}
