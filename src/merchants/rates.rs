//! How often a merchant may ask, where the operator gave it rates of its own.

use serde_json::{Map, Value, json};

use crate::{
    audit::{self, Actor, Change},
    db::During,
    domain::{MerchantId, OwnRates, Rate, RateClass},
};

use super::{Merchants, MerchantsError, book::held, store};

impl Merchants {
    /// The rates of a merchant that are its own.
    pub async fn rates(&self, merchant_id: MerchantId) -> Result<OwnRates, MerchantsError> {
        let mut conn = self.pool.acquire().await.during("read a merchant's rates")?;
        store::merchant(&mut conn, merchant_id).await?.ok_or(MerchantsError::Unknown)?;
        Ok(store::rates(&mut conn, merchant_id).await?)
    }

    /// Gives a merchant a rate of its own in each of these classes, or takes it away, and returns what is
    /// its own then. Processes that run notice it within a second.
    pub async fn set_rates(
        &self,
        actor: &Actor,
        merchant_id: MerchantId,
        wishes: &[(RateClass, Option<Rate>)],
    ) -> Result<OwnRates, MerchantsError> {
        let mut db = self.pool.begin().await.during("set a merchant's rates")?;
        held(&mut db, merchant_id).await?;
        let before = store::rates(&mut db, merchant_id).await?;
        let after = wishes.iter().fold(before, |rates, (class, rate)| rates.with(*class, *rate));
        if after == before {
            return Ok(before);
        }
        store::set_rates(&mut db, merchant_id, &after).await?;
        let change = Change {
            action: "merchant.set_rates",
            subject: &merchant_id.to_string(),
            merchant_id: Some(merchant_id),
            before: Some(shown(&before)),
            after: Some(shown(&after)),
        };
        audit::record(&mut db, actor, &change).await?;
        db.commit().await.during("set a merchant's rates")?;
        Ok(after)
    }
}

/// What is its own, for people.
fn shown(rates: &OwnRates) -> Value {
    let own = rates.own().map(|(class, rate)| (class.as_str().to_owned(), json!(rate.to_string())));
    Value::Object(own.collect::<Map<_, _>>())
}
