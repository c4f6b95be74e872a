//! What gas costs now, for those who ask before anything is promised.

use std::{sync::Arc, time::Duration};

use alloy::primitives::U256;
use moka::future::Cache;

use crate::{chain::ChainError, verify::Verified};

use super::{
    Engine,
    policy::{fees, gas::payment_gas},
};

/// How long a price is believed: about a block.
const TTL: Duration = Duration::from_secs(2);

/// The price of gas, as last seen.
#[derive(Debug)]
pub(super) struct Price(Cache<(), u128>);

impl Default for Price {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(1).time_to_live(TTL).build())
    }
}

impl Engine {
    /// What a payment is expected to cost in gas, in wei, by the prices of this block or the one before.
    /// What a rollup asks for data on L1 is not in it.
    ///
    /// # Errors
    /// When the chain does not tell its prices.
    pub async fn gas_cost_wei(&self, verified: &Verified) -> Result<U256, Arc<ChainError>> {
        let seen = async {
            let market = self.chain.fee_facts().await?;
            Ok(fees::price(market, self.options.fee_limits))
        };
        let price = self.price.0.try_get_with((), seen).await?;
        let gas = payment_gas(verified.gas_used(), verified.terms().wire_signature().len());
        Ok(U256::from(gas).saturating_mul(U256::from(price)))
    }
}
