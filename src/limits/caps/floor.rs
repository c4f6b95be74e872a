//! Floors: no payment is taken that moves less than its gas costs. Off until an asset has a price.

use alloy::primitives::{Address, U256, U512};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::{
    audit::{self, Actor, Change},
    db::{self, DbError, During},
    domain::ChainId,
    limits::change_rules,
};

/// One coin, in wei.
const WEI_PER_COIN: u64 = 1_000_000_000_000_000_000;

/// What a chain's coin costs in an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Where.
    pub chain_id: ChainId,
    /// The token contract.
    pub asset: Address,
    /// How many base units of it a whole coin costs.
    pub base_units_per_coin: U256,
}

impl Floor {
    /// The floor as the API and the command line tell it.
    pub fn told(&self) -> Value {
        json!({
            "chainId": self.chain_id.to_string(),
            "asset": self.asset.to_string(),
            "baseUnitsPerCoin": self.base_units_per_coin.to_string(),
        })
    }
}

/// The least amount that is not less than its gas. Stops at the largest amount.
pub(super) fn least_amount(gas_wei: U256, base_units_per_coin: U256) -> U256 {
    let wide = |number: U256| U512::from(number);
    // Two numbers of 256 bits cannot overflow one of 512.
    let cost = wide(gas_wei).saturating_mul(wide(base_units_per_coin));
    let least = cost.div_ceil(U512::from(WEI_PER_COIN));
    least.saturating_to()
}

/// Sets an asset's price, and so the floor for payments in it.
pub async fn set_floor(
    conn: &mut PgConnection,
    actor: &Actor,
    floor: &Floor,
) -> Result<(), DbError> {
    change_rules(conn).await?;
    let before = price(conn, floor.chain_id, floor.asset).await?;
    sqlx::query!(
        "
        insert into asset_price (chain_id, asset, base_units_per_coin)
        values ($1, $2, $3::text::numeric)
        on conflict on constraint asset_price_pkey
            do update set base_units_per_coin = excluded.base_units_per_coin
        ",
        floor.chain_id.to_string(),
        floor.asset.as_slice(),
        floor.base_units_per_coin.to_string(),
    )
    .execute(&mut *conn)
    .await
    .during("set a floor")?;
    record(conn, actor, "floor.set", floor, before, Some(floor.base_units_per_coin)).await
}

/// Takes an asset's price away. `None` if it had none.
pub async fn remove_floor(
    conn: &mut PgConnection,
    actor: &Actor,
    chain_id: ChainId,
    asset: Address,
) -> Result<Option<Floor>, DbError> {
    change_rules(conn).await?;
    let Some(base_units_per_coin) = price(conn, chain_id, asset).await? else { return Ok(None) };
    sqlx::query!(
        "delete from asset_price where chain_id = $1 and asset = $2",
        chain_id.to_string(),
        asset.as_slice(),
    )
    .execute(&mut *conn)
    .await
    .during("remove a floor")?;
    let floor = Floor { chain_id, asset, base_units_per_coin };
    record(conn, actor, "floor.remove", &floor, Some(base_units_per_coin), None).await?;
    Ok(Some(floor))
}

/// Every asset that has a price.
pub async fn floors(conn: &mut PgConnection) -> Result<Vec<Floor>, DbError> {
    let rows = sqlx::query!(
        r#"
        select chain_id, asset, base_units_per_coin::text as "base_units_per_coin!"
        from asset_price order by chain_id, asset
        "#
    )
    .fetch_all(conn)
    .await
    .during("list floors")?;
    rows.into_iter()
        .map(|row| {
            Ok(Floor {
                chain_id: db::chain_id(&row.chain_id)?,
                asset: db::address(&row.asset)?,
                base_units_per_coin: db::u256(&row.base_units_per_coin)?,
            })
        })
        .collect()
}

async fn price(
    conn: &mut PgConnection,
    chain_id: ChainId,
    asset: Address,
) -> Result<Option<U256>, DbError> {
    let price = sqlx::query_scalar!(
        r#"select base_units_per_coin::text as "price!" from asset_price
        where chain_id = $1 and asset = $2"#,
        chain_id.to_string(),
        asset.as_slice(),
    )
    .fetch_optional(conn)
    .await
    .during("read a floor")?;
    price.as_deref().map(db::u256).transpose()
}

async fn record(
    conn: &mut PgConnection,
    actor: &Actor,
    action: &str,
    floor: &Floor,
    before: Option<U256>,
    after: Option<U256>,
) -> Result<(), DbError> {
    let told = |price: U256| json!({ "baseUnitsPerCoin": price.to_string() });
    let subject = format!("{}/{}", floor.chain_id, floor.asset);
    let change = Change {
        action,
        subject: &subject,
        merchant_id: None,
        before: before.map(told),
        after: after.map(told),
    };
    audit::record(conn, actor, &change).await
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;

    use super::least_amount;

    #[test]
    fn the_floor_is_what_the_gas_costs_rounded_up() {
        // 3,000 USDC for a coin.
        let price = U256::from(3_000_000_000_u64);
        for (gas_wei, least) in [
            (0_u64, 0_u64),
            (1, 1),
            (333_333_333, 1),
            (333_333_334, 2),
            (1_000_000_000_000, 3_000),
            (1_000_000_000_001, 3_001),
        ] {
            assert_eq!(least_amount(U256::from(gas_wei), price), U256::from(least), "{gas_wei}");
        }
        assert_eq!(least_amount(U256::MAX, U256::MAX), U256::MAX);
        assert_eq!(least_amount(U256::MAX, U256::ZERO), U256::ZERO);
    }
}
