//! A test buyer: signs an authorization and has it settled over HTTP, as a resource server would.

use std::{net::SocketAddr, time::Duration};

use alloy::{
    primitives::{Address, B256, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};
use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    domain::{Amount, Authorization, AuthorizationNonce, TokenDomain, UnixTime},
    verify::authorization_digest,
};

use super::{Account, Market};

/// How long a payment may take, as the resource server's requirements say.
const MAX_TIMEOUT_SECONDS: u64 = 300;
/// Longer than `/settle` ever takes.
const HTTP_TIMEOUT: Duration = Duration::from_secs(40);

/// Someone who pays.
#[derive(Debug, Clone)]
pub struct Buyer {
    signer: PrivateKeySigner,
    market: Market,
}

/// The service's answer to a settlement.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Whether the payment was made.
    pub success: bool,
    /// The transaction.
    pub transaction: String,
    /// The chain.
    pub network: String,
    /// Why not.
    pub error_reason: Option<String>,
    /// Why not, in words.
    pub error_message: Option<String>,
}

impl Buyer {
    /// A buyer with the key of `account`.
    pub fn new(account: &Account, market: Market) -> anyhow::Result<Self> {
        let signer = account.private_key.parse().context("read a local account's key")?;
        Ok(Self { signer, market })
    }

    /// Who pays.
    pub const fn address(&self) -> Address {
        self.signer.address()
    }

    /// A fresh authorization, valid from the epoch until five minutes from `now`.
    pub fn authorization(&self, payee: Address, amount: Amount, now: UnixTime) -> Authorization {
        let valid_for = Duration::from_secs(MAX_TIMEOUT_SECONDS);
        Authorization {
            payer: self.address(),
            payee,
            amount,
            valid_after: U256::ZERO,
            valid_before: now.saturating_add(valid_for).as_u256(),
            nonce: AuthorizationNonce::from_bytes(B256::random()),
        }
    }

    /// The body that a resource server sends to `/verify` and `/settle` for it, in x402 version 2.
    pub fn request(&self, authorization: &Authorization) -> anyhow::Result<Value> {
        let market = &self.market;
        let domain =
            TokenDomain { name: market.token_name.clone(), version: market.token_version.clone() };
        let digest = authorization_digest(market.chain_id, market.asset, &domain, authorization);
        let signature = self.signer.sign_hash_sync(&digest).context("sign a payment")?;
        let requirements = json!({
            "scheme": "exact",
            "network": market.chain_id.to_string(),
            "amount": authorization.amount.to_string(),
            "asset": market.asset,
            "payTo": authorization.payee,
            "maxTimeoutSeconds": MAX_TIMEOUT_SECONDS,
            "extra": { "name": market.token_name, "version": market.token_version },
        });
        Ok(json!({
            "x402Version": 2,
            "paymentPayload": {
                "x402Version": 2,
                "resource": { "url": "https://shop.example/first-payment" },
                "accepted": requirements,
                "payload": {
                    "signature": alloy::hex::encode_prefixed(signature.as_bytes()),
                    "authorization": {
                        "from": authorization.payer,
                        "to": authorization.payee,
                        "value": authorization.amount.to_string(),
                        "validAfter": authorization.valid_after.to_string(),
                        "validBefore": authorization.valid_before.to_string(),
                        "nonce": authorization.nonce.to_string(),
                    },
                },
            },
            "paymentRequirements": requirements,
        }))
    }

    /// Pays `amount` to `payee` through the service at `service`.
    pub async fn pay(
        &self,
        service: SocketAddr,
        api_key: &str,
        payee: Address,
        amount: Amount,
    ) -> anyhow::Result<Receipt> {
        let authorization = self.authorization(payee, amount, crate::app::clock::now());
        let http = reqwest::Client::builder().timeout(HTTP_TIMEOUT).build()?;
        let answer = http
            .post(format!("http://{service}/settle"))
            .bearer_auth(api_key)
            .json(&self.request(&authorization)?)
            .send()
            .await
            .context("ask the service to settle")?;
        answer.json().await.context("read the service's answer")
    }
}
