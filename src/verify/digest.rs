//! The EIP-712 digest that a payer signs for EIP-3009.

use alloy::{
    primitives::{Address, B256},
    sol,
    sol_types::{Eip712Domain, SolStruct, eip712_domain},
};

use crate::domain::{Authorization, ChainId, TokenDomain};

sol! {
    /// The struct of EIP-3009; its type hash is
    /// `0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267`.
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }
}

/// The digest of `authorization` in the domain of one token on one chain.
pub fn authorization_digest(
    chain_id: ChainId,
    asset: Address,
    domain: &TokenDomain,
    authorization: &Authorization,
) -> B256 {
    TransferWithAuthorization {
        from: authorization.payer,
        to: authorization.payee,
        value: authorization.amount.base_units(),
        validAfter: authorization.valid_after,
        validBefore: authorization.valid_before,
        nonce: *authorization.nonce.as_bytes(),
    }
    .eip712_signing_hash(&signing_domain(chain_id, asset, domain))
}

/// What the token's `DOMAIN_SEPARATOR` is if `domain` is its signing domain.
pub(super) fn domain_separator(chain_id: ChainId, asset: Address, domain: &TokenDomain) -> B256 {
    signing_domain(chain_id, asset, domain).separator()
}

fn signing_domain(chain_id: ChainId, asset: Address, domain: &TokenDomain) -> Eip712Domain {
    eip712_domain! {
        name: domain.name.clone(),
        version: domain.version.clone(),
        chain_id: chain_id.eip155(),
        verifying_contract: asset,
    }
}
