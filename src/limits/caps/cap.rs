//! What a cap says.

use std::fmt;

use alloy::primitives::{Address, U256};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::{ApiKeyId, ChainId, MerchantId};

/// A cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapId(Uuid);

impl CapId {
    /// Wraps the id that the database or the clock made.
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as the database stores it.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for CapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose payments are capped. What is not named stands for each one on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// All that a merchant is paid.
    Merchant(Option<MerchantId>),
    /// All that is claimed with a key, of a merchant's or of all keys.
    Key(Option<MerchantId>, Option<ApiKeyId>),
    /// All that a payer pays, whomever.
    Payer(Option<Address>),
    /// All that a payer pays a merchant.
    PayerAtMerchant(Option<Address>, Option<MerchantId>),
}

impl Subject {
    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merchant(_) => "merchant",
            Self::Key(..) => "key",
            Self::Payer(_) => "payer",
            Self::PayerAtMerchant(..) => "payer_at_merchant",
        }
    }

    /// The merchant that it names.
    pub const fn merchant_id(self) -> Option<MerchantId> {
        match self {
            Self::Merchant(merchant_id)
            | Self::Key(merchant_id, _)
            | Self::PayerAtMerchant(_, merchant_id) => merchant_id,
            Self::Payer(_) => None,
        }
    }

    /// The key that it names.
    pub const fn api_key_id(self) -> Option<ApiKeyId> {
        match self {
            Self::Key(_, api_key_id) => api_key_id,
            Self::Merchant(_) | Self::Payer(_) | Self::PayerAtMerchant(..) => None,
        }
    }

    /// The payer that it names.
    pub const fn payer(self) -> Option<Address> {
        match self {
            Self::Payer(payer) | Self::PayerAtMerchant(payer, _) => payer,
            Self::Merchant(_) | Self::Key(..) => None,
        }
    }

    /// Who is named wins over each, and a payer or a key over a merchant.
    pub(super) const fn rank(self) -> (bool, bool) {
        (self.payer().is_some() || self.api_key_id().is_some(), self.merchant_id().is_some())
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Base units of an asset.
    Amount {
        /// Where.
        chain_id: ChainId,
        /// The token contract.
        asset: Address,
    },
    /// How many payments: on every chain, or on one, in every asset or in one.
    Count {
        /// Where, if not everywhere.
        chain_id: Option<ChainId>,
        /// In which asset, if not in any.
        asset: Option<Address>,
    },
    /// Wei of a chain's coin, spent on gas.
    Gas {
        /// Where.
        chain_id: ChainId,
    },
}

impl Measure {
    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amount { .. } => "amount",
            Self::Count { .. } => "count",
            Self::Gas { .. } => "gas",
        }
    }

    /// On which chain, if on one only.
    pub const fn chain_id(self) -> Option<ChainId> {
        match self {
            Self::Amount { chain_id, .. } | Self::Gas { chain_id } => Some(chain_id),
            Self::Count { chain_id, .. } => chain_id,
        }
    }

    /// In which asset, if in one only.
    pub const fn asset(self) -> Option<Address> {
        match self {
            Self::Amount { asset, .. } => Some(asset),
            Self::Count { asset, .. } => asset,
            Self::Gas { .. } => None,
        }
    }
}

/// How long a cap counts before it begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CapPeriod {
    /// Each payment is looked at by itself.
    Payment,
    /// From full hour to full hour, UTC.
    Hour,
    /// From midnight to midnight, UTC.
    Day,
}

impl CapPeriod {
    /// Every period.
    pub const ALL: [Self; 3] = [Self::Payment, Self::Hour, Self::Day];

    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Reads that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.as_str() == text)
    }
}

/// What a cap is about, without its limit. There is one cap of each setter for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CapTerms {
    subject: Subject,
    measure: Measure,
    period: CapPeriod,
}

/// Why something cannot be capped so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCap {
    /// Every payment is one payment.
    #[error("payments are counted by the hour or by the day")]
    CountOfOne,
    /// A gas budget is a day's, of a merchant or of a payer.
    #[error("a gas budget is for a day, and for a merchant or a payer")]
    GasBudget,
    /// An address means nothing without its chain.
    #[error("an asset is on a chain")]
    AssetWithoutChain,
    /// A key belongs to a merchant.
    #[error("a key is named with its merchant")]
    KeyWithoutMerchant,
}

impl CapTerms {
    /// What a cap may be about.
    pub fn new(subject: Subject, measure: Measure, period: CapPeriod) -> Result<Self, InvalidCap> {
        let is_of_gas_payer = matches!(subject, Subject::Merchant(_) | Subject::Payer(_));
        match (measure, period) {
            (Measure::Count { .. }, CapPeriod::Payment) => return Err(InvalidCap::CountOfOne),
            (Measure::Count { chain_id: None, asset: Some(_) }, _) => {
                return Err(InvalidCap::AssetWithoutChain);
            }
            (Measure::Gas { .. }, CapPeriod::Day) if is_of_gas_payer => (),
            (Measure::Gas { .. }, _) => return Err(InvalidCap::GasBudget),
            (Measure::Amount { .. } | Measure::Count { .. }, _) => (),
        }
        match subject {
            Subject::Key(None, Some(_)) => Err(InvalidCap::KeyWithoutMerchant),
            _ => Ok(Self { subject, measure, period }),
        }
    }

    /// Whose payments.
    pub const fn subject(&self) -> Subject {
        self.subject
    }

    /// What of them.
    pub const fn measure(&self) -> Measure {
        self.measure
    }

    /// For how long.
    pub const fn period(&self) -> CapPeriod {
        self.period
    }
}

/// Who sets a cap. What the operator sets holds beside what the merchant sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setter {
    /// The operator, for anybody.
    Operator,
    /// A merchant, for itself.
    Merchant(MerchantId),
}

impl Setter {
    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Merchant(_) => "merchant",
        }
    }
}

/// A cap that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Its id, which a change of the limit keeps.
    pub cap_id: CapId,
    /// Who set it.
    pub set_by: Setter,
    /// What it is about.
    pub terms: CapTerms,
    /// How much is taken at most.
    pub most: U256,
}

impl Cap {
    /// The cap as the API, the command line and the record of changes tell it.
    pub fn told(&self) -> Value {
        let (subject, measure) = (self.terms.subject, self.terms.measure);
        json!({
            "capId": self.cap_id.as_uuid(),
            "setBy": self.set_by.as_str(),
            "subject": subject.as_str(),
            "merchantId": subject.merchant_id().map(MerchantId::as_uuid),
            "keyId": subject.api_key_id().map(ApiKeyId::as_uuid),
            "payer": subject.payer().map(|payer| payer.to_string()),
            "measure": measure.as_str(),
            "period": self.terms.period.as_str(),
            "chainId": measure.chain_id().map(|chain_id| chain_id.to_string()),
            "asset": measure.asset().map(|asset| asset.to_string()),
            "limit": self.most.to_string(),
        })
    }
}

impl fmt::Display for Cap {
    /// Whose, on what and for how long, such as `the operator's cap for each payer, 100 payments a day`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.set_by.as_str();
        let is_named = self.terms.subject.rank() != (false, false);
        let whose = match (self.terms.subject, is_named) {
            (Subject::Merchant(_), true) => "this merchant",
            (Subject::Merchant(_), false) => "each merchant",
            (Subject::Key(_, Some(_)), _) => "this key",
            (Subject::Key(_, None), _) => "each key",
            (Subject::Payer(_), true) => "this payer",
            (Subject::Payer(_), false) => "each payer",
            (Subject::PayerAtMerchant(Some(_), _), _) => "this payer at a merchant",
            (Subject::PayerAtMerchant(None, _), _) => "each payer at a merchant",
        };
        let what = match self.terms.measure {
            Measure::Amount { chain_id, asset } => {
                format!("{} base units of {chain_id}/{asset}", self.most)
            }
            Measure::Count { chain_id: None, .. } => format!("{} payments", self.most),
            Measure::Count { chain_id: Some(chain_id), asset: None } => {
                format!("{} payments on {chain_id}", self.most)
            }
            Measure::Count { chain_id: Some(chain_id), asset: Some(asset) } => {
                format!("{} payments in {chain_id}/{asset}", self.most)
            }
            Measure::Gas { chain_id } => format!("{} wei of gas on {chain_id}", self.most),
        };
        let period = match self.terms.period {
            CapPeriod::Payment => "a payment",
            CapPeriod::Hour => "an hour",
            CapPeriod::Day => "a day",
        };
        write!(f, "the {owner}'s cap for {whose}, {what} {period}")
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;
    use uuid::Uuid;

    use super::{CapPeriod, CapTerms, InvalidCap, Measure, Subject};
    use crate::domain::{ApiKeyId, ChainId};

    #[test]
    fn what_makes_no_sense_cannot_be_capped() {
        let chain_id: ChainId = "eip155:8453".parse().unwrap();
        let asset = Address::repeat_byte(1);
        let count = Measure::Count { chain_id: None, asset: None };
        let amount = Measure::Amount { chain_id, asset };
        let gas = Measure::Gas { chain_id };
        let adrift = Measure::Count { chain_id: None, asset: Some(asset) };
        let (merchant, payer) = (Subject::Merchant(None), Subject::Payer(None));
        let (key, at) = (Subject::Key(None, None), Subject::PayerAtMerchant(None, None));
        let stray = Subject::Key(None, Some(ApiKeyId::from_uuid(Uuid::nil())));
        for (subject, measure, period, expected) in [
            (merchant, amount, CapPeriod::Payment, None),
            (key, amount, CapPeriod::Hour, None),
            (payer, count, CapPeriod::Day, None),
            (at, count, CapPeriod::Hour, None),
            (at, count, CapPeriod::Payment, Some(InvalidCap::CountOfOne)),
            (merchant, adrift, CapPeriod::Hour, Some(InvalidCap::AssetWithoutChain)),
            (merchant, gas, CapPeriod::Day, None),
            (payer, gas, CapPeriod::Day, None),
            (merchant, gas, CapPeriod::Hour, Some(InvalidCap::GasBudget)),
            (key, gas, CapPeriod::Day, Some(InvalidCap::GasBudget)),
            (at, gas, CapPeriod::Day, Some(InvalidCap::GasBudget)),
            (stray, count, CapPeriod::Day, Some(InvalidCap::KeyWithoutMerchant)),
        ] {
            let made = CapTerms::new(subject, measure, period);
            assert_eq!(made.err(), expected, "{subject:?} {measure:?} {period:?}");
        }
    }
}
