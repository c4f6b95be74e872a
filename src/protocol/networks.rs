//! What a chain is called on the wire: a name in version 1, CAIP-2 in version 2.

use crate::domain::{ChainId, X402Version};

/// The names of version 1, from npm `@x402/evm` 2.27.0 `src/constants.ts`.
const V1_NAMES: [(&str, &str); 23] = [
    ("ethereum", "eip155:1"),
    ("sepolia", "eip155:11155111"),
    ("abstract", "eip155:2741"),
    ("abstract-testnet", "eip155:11124"),
    ("base-sepolia", "eip155:84532"),
    ("base", "eip155:8453"),
    ("avalanche-fuji", "eip155:43113"),
    ("avalanche", "eip155:43114"),
    ("iotex", "eip155:4689"),
    ("sei", "eip155:1329"),
    ("sei-testnet", "eip155:1328"),
    ("polygon", "eip155:137"),
    ("polygon-amoy", "eip155:80002"),
    ("peaq", "eip155:3338"),
    ("story", "eip155:1514"),
    ("educhain", "eip155:41923"),
    ("skale-base-sepolia", "eip155:324705682"),
    ("megaeth", "eip155:4326"),
    ("monad", "eip155:143"),
    ("stable", "eip155:988"),
    ("stable-testnet", "eip155:2201"),
    ("celo", "eip155:42220"),
    ("flare", "eip155:14"),
];

/// What a chain is called in that version; `None` if version 1 has no name for it.
pub fn network_name(version: X402Version, chain_id: ChainId) -> Option<String> {
    let caip2 = chain_id.to_string();
    match version {
        X402Version::V1 => {
            V1_NAMES.iter().find(|(_, chain)| *chain == caip2).map(|(name, _)| (*name).to_owned())
        }
        X402Version::V2 => Some(caip2),
    }
}

/// The chain that a request of that version calls `network`; `None` if it is no EVM chain's name.
pub fn chain_id(version: X402Version, network: &str) -> Option<ChainId> {
    let caip2 = match version {
        X402Version::V1 => V1_NAMES.iter().find(|(name, _)| *name == network)?.1,
        X402Version::V2 => network,
    };
    caip2.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_and_no_chain_is_listed_twice() {
        let names: BTreeSet<_> = V1_NAMES.iter().map(|(name, _)| name).collect();
        let chains: BTreeSet<_> = V1_NAMES.iter().map(|(_, chain)| chain).collect();
        assert_eq!((names.len(), chains.len()), (V1_NAMES.len(), V1_NAMES.len()));
    }

    #[test]
    fn every_name_round_trips_in_its_own_version_only() {
        use X402Version::{V1, V2};
        for (name, caip2) in V1_NAMES {
            let chain = chain_id(V1, name).unwrap();
            assert_eq!(network_name(V1, chain).as_deref(), Some(name));
            assert_eq!(network_name(V2, chain).as_deref(), Some(caip2));
            assert_eq!(chain_id(V2, caip2), Some(chain));
            assert_eq!(chain_id(V1, caip2), None, "CAIP-2 is not a name");
            assert_eq!(chain_id(V2, name), None, "a name is not CAIP-2");
        }
    }

    #[test]
    fn a_chain_without_a_name_has_none_in_version_1() {
        let arbitrum = chain_id(X402Version::V2, "eip155:42161").unwrap();
        assert_eq!(network_name(X402Version::V1, arbitrum), None);
        for name in ["", "Base", "base ", "8453", "solana"] {
            assert_eq!(chain_id(X402Version::V1, name), None, "{name:?}");
        }
    }
}
