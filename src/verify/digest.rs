//! The EIP-712 digest that a payer signs for EIP-3009.

use std::cell::RefCell;

use alloy::{
    primitives::{Address, B256, b256, keccak256},
    sol_types::{SolValue, eip712_domain},
};

use crate::domain::{Authorization, ChainId, TokenDomain};

/// Of `TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256
/// validBefore,bytes32 nonce)` (EIP-3009).
const TYPE_HASH: B256 = b256!("7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267");
/// How many separators each thread remembers: a service sees the domains of a few tokens, again and again.
const N_REMEMBERED_MAX: usize = 16;

thread_local! {
    static SEPARATORS: RefCell<Vec<(ChainId, Address, TokenDomain, B256)>> = const { RefCell::new(Vec::new()) };
}

/// The digest of `authorization` in the domain of one token on one chain.
pub fn authorization_digest(
    chain_id: ChainId,
    asset: Address,
    domain: &TokenDomain,
    authorization: &Authorization,
) -> B256 {
    let fields = (
        TYPE_HASH,
        authorization.payer,
        authorization.payee,
        authorization.amount.base_units(),
        authorization.valid_after,
        authorization.valid_before,
        *authorization.nonce.as_bytes(),
    );
    let separator = domain_separator(chain_id, asset, domain);
    let hash = keccak256(fields.abi_encode());
    keccak256([&[0x19, 0x01], separator.as_slice(), hash.as_slice()].concat())
}

/// What the token's `DOMAIN_SEPARATOR` is if `domain` is its signing domain.
pub(super) fn domain_separator(chain_id: ChainId, asset: Address, domain: &TokenDomain) -> B256 {
    SEPARATORS.with_borrow_mut(|remembered| {
        let known = remembered.iter().find(|(known_chain, known_asset, known_domain, _)| {
            *known_chain == chain_id && *known_asset == asset && known_domain == domain
        });
        if let Some((.., separator)) = known {
            return *separator;
        }
        let separator = separator_of(chain_id, asset, domain);
        if remembered.len() >= N_REMEMBERED_MAX {
            remembered.remove(0);
        }
        remembered.push((chain_id, asset, domain.clone(), separator));
        separator
    })
}

fn separator_of(chain_id: ChainId, asset: Address, domain: &TokenDomain) -> B256 {
    let domain = eip712_domain! {
        name: domain.name.clone(),
        version: domain.version.clone(),
        chain_id: chain_id.eip155(),
        verifying_contract: asset,
    };
    domain.separator()
}

#[cfg(test)]
mod tests {
    use alloy::{
        primitives::{Address, B256, U256},
        sol,
        sol_types::{SolStruct as _, eip712_domain},
    };

    use super::{N_REMEMBERED_MAX, authorization_digest};
    use crate::domain::{Amount, Authorization, AuthorizationNonce, TokenDomain};

    sol! {
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
    }

    #[test]
    fn a_digest_is_that_of_the_library_whatever_was_hashed_before() {
        let authorization = Authorization {
            payer: Address::repeat_byte(1),
            payee: Address::repeat_byte(2),
            amount: Amount::from_base_units(U256::from(3)),
            valid_after: U256::from(4),
            valid_before: U256::from(5),
            nonce: AuthorizationNonce::from_bytes(B256::repeat_byte(6)),
        };
        let signed = TransferWithAuthorization {
            from: authorization.payer,
            to: authorization.payee,
            value: U256::from(3),
            validAfter: authorization.valid_after,
            validBefore: authorization.valid_before,
            nonce: *authorization.nonce.as_bytes(),
        };
        let chain_id = "eip155:8453".parse().unwrap();
        let asset = Address::repeat_byte(9);
        for n in (0..=2 * N_REMEMBERED_MAX).chain([0, 1]) {
            let name = format!("token {n}");
            let domain = TokenDomain { name: name.clone(), version: "2".to_owned() };
            let expected = eip712_domain! {
                name: name, version: "2", chain_id: 8453, verifying_contract: asset,
            };
            for _ in 0..2 {
                let digest = authorization_digest(chain_id, asset, &domain, &authorization);
                assert_eq!(digest, signed.eip712_signing_hash(&expected));
            }
        }
    }
}
