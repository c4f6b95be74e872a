//! What `/supported` says.

use std::collections::BTreeSet;

use alloy::primitives::Address;
use serde::Serialize;

use crate::domain::{ChainId, Scheme, X402Version};

use super::network_name;

/// Everything that this facilitator serves.
///
/// Resource servers read it once, at start, and match networks by string equality.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Supported {
    kinds: Vec<Kind>,
    extensions: Vec<&'static str>,
    signers: Signers,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    x402_version: u8,
    scheme: &'static str,
    network: String,
}

/// The wallets that send transactions, by CAIP family as npm `@x402/core` 2.27.0 keys them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Signers {
    #[serde(rename = "eip155:*")]
    eip155: BTreeSet<String>,
}

impl Supported {
    /// The answer for these kinds and wallets. A chain that version 1 has no name for is left out of
    /// version 1.
    pub fn of(
        kinds: impl IntoIterator<Item = (X402Version, Scheme, ChainId)>,
        signers: Vec<Address>,
    ) -> Self {
        let kind = |(version, scheme, chain_id): (X402Version, Scheme, ChainId)| {
            let network = network_name(version, chain_id)?;
            Some(Kind { x402_version: version.as_u8(), scheme: scheme.as_str(), network })
        };
        let eip155 = signers.iter().map(|signer| signer.to_checksum(None)).collect();
        Self {
            kinds: kinds.into_iter().filter_map(kind).collect(),
            extensions: Vec::new(),
            signers: Signers { eip155 },
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::address;
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_one_flat_list_and_signers_are_listed_once() {
        let base: ChainId = "eip155:8453".parse().unwrap();
        let arbitrum: ChainId = "eip155:42161".parse().unwrap();
        let wallet = address!("f39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        let versions = [X402Version::V2, X402Version::V1];
        let kinds = [base, arbitrum]
            .into_iter()
            .flat_map(|chain| versions.map(|version| (version, Scheme::Exact, chain)));
        assert_eq!(
            serde_json::to_value(Supported::of(kinds, vec![wallet, wallet])).unwrap(),
            json!({
                "kinds": [
                    { "x402Version": 2, "scheme": "exact", "network": "eip155:8453" },
                    { "x402Version": 1, "scheme": "exact", "network": "base" },
                    { "x402Version": 2, "scheme": "exact", "network": "eip155:42161" },
                ],
                "extensions": [],
                "signers": { "eip155:*": ["0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"] },
            })
        );
    }

    #[test]
    fn serving_nothing_still_has_every_field() {
        assert_eq!(
            serde_json::to_value(Supported::of([], Vec::new())).unwrap(),
            json!({ "kinds": [], "extensions": [], "signers": { "eip155:*": [] } })
        );
    }
}
