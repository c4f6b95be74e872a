//! What a merchant may be paid in.

use std::{fmt, str::FromStr, sync::Arc};

use alloy::primitives::Address;

use crate::domain::ChainId;

/// How many assets a merchant may be limited to: every payment looks through the list.
pub const N_ASSETS_MAX: usize = 100;

/// A token on a chain, written `eip155:8453/0x…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asset {
    /// Where.
    pub chain_id: ChainId,
    /// The token contract.
    pub address: Address,
}

/// The assets that a merchant may be paid in. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assets(Option<Arc<[Asset]>>);

/// Why a text is no list of assets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssetsError {
    /// One of them cannot be read.
    #[error("{0:?} is not an asset, such as eip155:8453/0x and 40 hex digits")]
    NotAnAsset(String),
    /// There are too many.
    #[error("there are {0} assets; {N_ASSETS_MAX} are the most")]
    TooMany(usize),
}

impl Assets {
    /// Any asset.
    pub const ANY: Self = Self(None);

    /// Those and no others; any, if there are none.
    pub fn of(mut assets: Vec<Asset>) -> Result<Self, AssetsError> {
        assets.sort_unstable();
        assets.dedup();
        match assets.len() {
            0 => Ok(Self::ANY),
            1..=N_ASSETS_MAX => Ok(Self(Some(assets.into()))),
            n => Err(AssetsError::TooMany(n)),
        }
    }

    /// Whether payments in that asset may be taken.
    pub fn allow(&self, chain_id: ChainId, address: Address) -> bool {
        let is_it = |asset: &Asset| asset.chain_id == chain_id && asset.address == address;
        self.0.as_ref().is_none_or(|assets| assets.iter().any(is_it))
    }

    /// Which they are; none stands for any.
    pub fn listed(&self) -> &[Asset] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl FromStr for Asset {
    type Err = AssetsError;

    fn from_str(text: &str) -> Result<Self, AssetsError> {
        let read = || {
            let (chain_id, address) = text.trim().split_once('/')?;
            let chain_id = chain_id.parse().ok()?;
            Some(Self { chain_id, address: address.strip_prefix("0x")?.parse().ok()? })
        };
        read().ok_or_else(|| AssetsError::NotAnAsset(text.to_owned()))
    }
}

impl FromStr for Assets {
    type Err = AssetsError;

    /// `any`, or assets separated by commas.
    fn from_str(text: &str) -> Result<Self, AssetsError> {
        if text == "any" {
            return Ok(Self::ANY);
        }
        Self::of(text.split(',').map(Asset::from_str).collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.chain_id, self.address)
    }
}

impl fmt::Display for Assets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(assets) = &self.0 else { return f.write_str("any") };
        let assets: Vec<String> = assets.iter().map(Asset::to_string).collect();
        f.write_str(&assets.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::{Asset, Assets, AssetsError, N_ASSETS_MAX};

    fn nth(n: usize) -> String {
        format!("eip155:8453/0x{n:040x}")
    }

    #[test]
    fn a_list_allows_what_it_names_and_any_allows_all() {
        let text = format!("{},{}, {}", nth(2), nth(1), nth(2));
        let assets: Assets = text.parse().unwrap();
        assert_eq!(assets.to_string(), format!("{},{}", nth(1), nth(2)));
        let allows = |assets: &Assets, text: &str| {
            let asset: Asset = text.parse().unwrap();
            assets.allow(asset.chain_id, asset.address)
        };
        for (asset, is_named) in
            [(nth(1), true), (nth(2), true), (nth(3), false), (nth(1).replace("8453", "1"), false)]
        {
            assert_eq!(allows(&assets, &asset), is_named, "{asset}");
            assert!(allows(&Assets::ANY, &asset), "{asset}");
        }
        assert_eq!("any".parse(), Ok(Assets::ANY));
        assert_eq!(Assets::ANY.to_string(), "any");
    }

    #[test]
    fn a_list_has_a_limit_and_its_items_one_form() {
        let many = |n: usize| (0..n).map(nth).collect::<Vec<_>>().join(",").parse::<Assets>();
        assert_eq!(many(N_ASSETS_MAX).unwrap().listed().len(), N_ASSETS_MAX);
        assert_eq!(many(N_ASSETS_MAX + 1), Err(AssetsError::TooMany(N_ASSETS_MAX + 1)));
        let address = format!("0x{}", "1".repeat(40));
        for wrong in [
            "",
            "none",
            &address,
            &nth(1)[..50],
            &nth(1).replace("0x", ""),
            &format!("base/{address}"),
            &format!("solana:x/{address}"),
            &format!("{},", nth(1)),
        ] {
            let parsed = wrong.parse::<Assets>();
            assert!(matches!(parsed, Err(AssetsError::NotAnAsset(_))), "{wrong:?}: {parsed:?}");
        }
    }
}
