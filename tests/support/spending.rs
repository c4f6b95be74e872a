//! What owners of paying wallets sign about their spending.

use alloy::{
    hex,
    primitives::{Address, B256, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};
use quittance::{
    app::dev::Account,
    domain::Amount,
    policies::{Document, Ending, Limits, ReadRequest, Session, SpendingPolicy, Subject},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Service, World};

/// That many base units.
pub fn units(base_units: u64) -> Amount {
    Amount::from_base_units(U256::from(base_units))
}

/// No limits at all.
pub fn unlimited() -> Limits {
    Limits {
        per_payment: Amount::MAX,
        per_day: Amount::MAX,
        total: Amount::MAX,
        payees: Vec::new(),
        valid_after: U256::ZERO,
        valid_before: U256::MAX,
    }
}

/// A session without limits for signatures of `key`; zero is any.
pub fn session(key: Address) -> Session {
    Session { key, limits: unlimited() }
}

/// The bytes with which an account signs a digest.
pub fn sign(signer: &Account, digest: B256) -> Vec<u8> {
    let signer: PrivateKeySigner = signer.private_key.parse().unwrap();
    signer.sign_hash_sync(&digest).unwrap().as_bytes().to_vec()
}

/// The body of a registration, with any signature.
pub fn with_signature(document: &Document, signature: &[u8]) -> Value {
    json!({
        "network": document.subject().chain_id.to_string(),
        document.kind().as_str(): document.to_json(),
        "signature": hex::encode_prefixed(signature),
    })
}

/// The body of a registration that `signer` signed.
pub fn signed(document: &Document, signer: &Account) -> Value {
    with_signature(document, &sign(signer, document.digest()))
}

impl World {
    /// The money of an account in USDC.
    pub fn money_of(&self, account: Address) -> Subject {
        let chain = &self.services.chain;
        Subject { chain_id: chain.chain_id, account, asset: chain.usdc }
    }

    /// A policy without limits, whose owner is the account itself.
    pub fn policy_of(&self, account: Address, nonce: u64) -> SpendingPolicy {
        SpendingPolicy {
            subject: self.money_of(account),
            nonce: U256::from(nonce),
            owner: Address::ZERO,
            limits: unlimited(),
            sessions: Vec::new(),
        }
    }

    /// What ends a policy.
    pub fn ending_of(&self, account: Address, nonce: u64) -> Ending {
        Ending { subject: self.money_of(account), nonce: U256::from(nonce) }
    }

    /// A fresh payment of the n-th buyer to somebody, valid whatever the time.
    pub fn payment_to(&self, payee: Address, n: usize, amount: u64) -> Value {
        let mut authorization = self.authorization(n, amount);
        authorization.payee = payee;
        authorization.valid_before = U256::MAX;
        self.buyer(n).request(&authorization).unwrap()
    }
}

impl Service {
    /// Asks without a key.
    pub async fn post_openly(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[], body.to_string()).await
    }

    /// Registers what `signer` signed, which must be taken.
    pub async fn register(&self, document: &Document, signer: &Account) {
        let answer = self.post_openly("/v1/policies", &signed(document, signer)).await;
        assert_eq!(answer.status, 201, "{}\n{}", answer.body, self.log());
    }

    /// What is in force, for whoever signs the question.
    pub async fn read_policy(&self, subject: Subject, issued_at: u64, signer: &Account) -> Answer {
        let request = ReadRequest { subject, issued_at: U256::from(issued_at) };
        let body = json!({
            "network": subject.chain_id.to_string(),
            "account": subject.account,
            "asset": subject.asset,
            "issuedAt": issued_at,
            "signature": hex::encode_prefixed(sign(signer, request.digest())),
        });
        self.post_openly("/v1/policies/read", &body).await
    }

    /// `POST` with that key.
    pub async fn post_as(&self, key: &str, path: &str, body: &Value) -> Answer {
        let header = ("Authorization", format!("Bearer {key}"));
        self.send(Method::POST, path, &[header], body.to_string()).await
    }

    /// Why a payment would not be taken, once that is this; `None` for one that would be. What
    /// `/verify` knows of policies may be a second behind.
    pub async fn until_verdict(&self, payment: &Value, reason: Option<&str>) -> Value {
        let mut answer = Value::Null;
        for _ in 0..150 {
            answer = self.verify(payment).await;
            if answer.get("invalidReason").and_then(Value::as_str) == reason {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("not {reason:?} after three seconds: {answer}");
    }
}
