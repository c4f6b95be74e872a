//! By whose keys a payment was signed, where sessions are told apart by keys.
//!
//! An account without code signed with its own key. What a wallet with code takes for a signature is its own
//! affair, so the keys are recovered from the forms that wallets use. A key is only ever found where it
//! signed this very payment: whoever holds none of a policy's keys cannot seem to.

use alloy::{
    primitives::{Address, B256, Bytes},
    sol_types::{SolStruct as _, eip712_domain},
};

use crate::{
    domain::PayerKind,
    verify::{EcdsaSignature, Unwrapped, Verified},
};

/// How long `r ‖ s ‖ v` is.
const N_ECDSA_BYTES: usize = 65;
/// Where it stands in `abi.encode(uint256, bytes)`, whose length is then 192 bytes.
const IN_PAIR: (usize, usize) = (192, 96);
/// Where it stands in `abi.encode((uint256, bytes))`, as Coinbase Smart Wallet has it.
const IN_TUPLE: (usize, usize) = (224, 128);

alloy::sol! {
    /// What a key of a Coinbase Smart Wallet signs instead of a digest (`ERC1271.sol` of that wallet).
    struct CoinbaseSmartWalletMessage {
        bytes32 hash;
    }
}

/// The keys that may have signed, none if it cannot be told.
///
/// Of a wallet with code: whoever signed the payment's digest, or what a Coinbase Smart Wallet makes of it, in
/// 65 bytes that are the signature, end it, or are the bytes in `abi.encode(uint256, bytes)`, as a tuple or
/// not.
pub fn signers(verified: &Verified) -> Vec<Address> {
    let terms = verified.terms();
    let payer = terms.authorization().payer;
    if verified.payer_kind() == PayerKind::Key {
        return vec![payer];
    }
    let signature = Unwrapped::of(terms.wire_signature()).signature;
    let chain_id = terms.requirements().chain_id.eip155();
    let digests = [terms.digest(), replay_safe(chain_id, payer, terms.digest())];
    keys(&signature, &digests)
}

fn keys(signature: &Bytes, digests: &[B256]) -> Vec<Address> {
    let found = forms(signature).into_iter().filter_map(EcdsaSignature::parse);
    let mut keys: Vec<Address> = found
        .flat_map(|signature| digests.iter().filter_map(move |digest| signature.signer(*digest)))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Where 65 bytes of a signature may stand.
fn forms(signature: &[u8]) -> Vec<&[u8]> {
    let end = signature.len().saturating_sub(N_ECDSA_BYTES);
    let inside = [IN_PAIR, IN_TUPLE].into_iter().filter(|(length, _)| *length == signature.len());
    let starts = std::iter::once(end).chain(inside.map(|(_, start)| start));
    starts.filter_map(|start| signature.get(start..start.checked_add(N_ECDSA_BYTES)?)).collect()
}

/// What the key of a Coinbase Smart Wallet at `wallet` signs for `digest`.
fn replay_safe(chain_id: u64, wallet: Address, digest: B256) -> B256 {
    let domain = eip712_domain! {
        name: "Coinbase Smart Wallet",
        version: "1",
        chain_id: chain_id,
        verifying_contract: wallet,
    };
    CoinbaseSmartWalletMessage { hash: digest }.eip712_signing_hash(&domain)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256, Bytes};
    use serde_json::Value;

    use super::{keys, replay_safe};

    /// Signed by viem (`tests/interop/spending-policy-vectors.mjs`).
    fn vector(name: &str) -> String {
        let file = include_str!("../../tests/vectors/spending_policy.json");
        let file: Value = serde_json::from_str(file).unwrap();
        file["coinbase"][name].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_key_of_a_coinbase_smart_wallet_is_found_and_only_for_that_wallet() {
        let digest: B256 = vector("digest").parse().unwrap();
        let wallet: Address = vector("wallet").parse().unwrap();
        let key: Address = vector("key").parse().unwrap();
        let signature: Bytes = vector("signature").parse().unwrap();
        let safe = replay_safe(8453, wallet, digest);
        assert_eq!(safe, vector("replaySafe").parse::<B256>().unwrap());
        assert!(keys(&signature, &[digest, safe]).contains(&key));
        let of_another = replay_safe(8453, Address::repeat_byte(2), digest);
        assert!(!keys(&signature, &[digest, of_another]).contains(&key));
        let prefixed: Bytes = vector("prefixed").parse().unwrap();
        assert!(keys(&prefixed, &[digest, safe]).contains(&key));
        assert!(!keys(&prefixed, &[safe]).contains(&key));
    }
}
