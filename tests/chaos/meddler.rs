//! Third parties: they submit payers' authorizations themselves, or payers' cancellations.

use std::sync::atomic::{AtomicUsize, Ordering};

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol,
    sol_types::{SolCall, SolStruct, eip712_domain},
};
use quittance::{
    app::dev::Account,
    chain::transfer_calldata,
    domain::{Authorization, ChainId},
    verify::EcdsaSignature,
};
use serde_json::Value;

use crate::{ground::Ground, support::Draft};

sol! {
    function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s);
    struct CancelAuthorization {
        address authorizer;
        bytes32 nonce;
    }
}

/// What each of them can pay gas with.
const BALANCE_WEI: u128 = 1_000_000_000_000_000_000;
/// A transfer or a cancellation, to a payee who holds the token or not.
const GAS_LIMIT: u64 = 200_000;

/// Where and under which name the token is signed for.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) address: Address,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) chain_id: ChainId,
}

/// Strangers with gas, each of whom sends one transaction: whatever becomes of it, none other waits
/// for its account nonce.
pub(crate) struct Meddlers {
    accounts: Vec<Account>,
    n_used: AtomicUsize,
    token: Token,
}

impl Meddlers {
    /// Gives `n` strangers gas. Before the run, so that no reorganization takes it back.
    pub(crate) async fn fund(ground: &Ground, n: usize, token: Token) -> Self {
        let account = |number: usize| {
            let key = U256::from(number + 1).wrapping_mul(U256::from(0x1234_5678_9abc_def1_u64));
            let private_key = B256::from(key).to_string();
            let signer: PrivateKeySigner = private_key.parse().unwrap();
            Account { address: signer.address(), private_key }
        };
        let accounts: Vec<Account> = (0..n).map(account).collect();
        for account in &accounts {
            ground.node.set_balance(account.address, BALANCE_WEI).await;
        }
        Self { accounts, n_used: AtomicUsize::new(0), token }
    }

    /// Submits a payment in somebody else's stead. `false` if nobody could.
    pub(crate) async fn submit(
        &self,
        ground: &Ground,
        authorization: &Authorization,
        payment: &Value,
    ) -> bool {
        let signature = payment["paymentPayload"]["payload"]["signature"].as_str().unwrap();
        let signature = EcdsaSignature::parse(&alloy::hex::decode(signature).unwrap()).unwrap();
        self.send(ground, transfer_calldata(authorization, &signature)).await
    }

    /// Submits the payer's cancellation. `false` if nobody could.
    pub(crate) async fn cancel(
        &self,
        ground: &Ground,
        authorization: &Authorization,
        payer: &Account,
    ) -> bool {
        let (authorizer, nonce) = (authorization.payer, *authorization.nonce.as_bytes());
        let domain = eip712_domain! {
            name: self.token.name.clone(),
            version: self.token.version.clone(),
            chain_id: self.token.chain_id.eip155(),
            verifying_contract: self.token.address,
        };
        let digest = CancelAuthorization { authorizer, nonce }.eip712_signing_hash(&domain);
        let signer: PrivateKeySigner = payer.private_key.parse().unwrap();
        let signed = signer.sign_hash_sync(&digest).unwrap();
        let signature = EcdsaSignature::parse(&signed.as_bytes()).unwrap();
        let (v, r, s) = (signature.v(), signature.r(), signature.s());
        let call = cancelAuthorizationCall { authorizer, nonce, v, r, s };
        self.send(ground, call.abi_encode().into()).await
    }

    async fn send(&self, ground: &Ground, data: Bytes) -> bool {
        let number = self.n_used.fetch_add(1, Ordering::SeqCst);
        let Some(account) = self.accounts.get(number) else { return false };
        let draft = Draft { gas_limit: GAS_LIMIT, to: self.token.address, data, ..Draft::new(0) };
        let signed = draft.sign(account, self.token.chain_id);
        ground.send(signed.hash, &signed.raw).await
    }
}
