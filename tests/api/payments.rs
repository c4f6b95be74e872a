//! Payments as resource servers send them: sound ones, and ones that are wrong in a chosen way.

use alloy::primitives::{Address, U256, address, hex, uint};
use quittance::{
    app::dev::{Account, Buyer, Market},
    domain::Authorization,
};
use serde_json::{Value, json};

use crate::support::World;

pub(crate) const AMOUNT: u64 = 10_000;
pub(crate) const SIGNATURE: &str = "/paymentPayload/payload/signature";
/// An address that never has code.
pub(crate) const NOWHERE: Address = address!("00000000000000000000000000000000deadbeef");

const CURVE_ORDER: U256 =
    uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);

/// The dialects of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

pub(crate) const VERSIONS: [Version; 2] = [Version::V2, Version::V1];

impl Version {
    /// What Base is called.
    pub(crate) const fn base(self) -> &'static str {
        match self {
            Self::V1 => "base",
            Self::V2 => "eip155:8453",
        }
    }

    /// A payment of version 2 in this version's form.
    pub(crate) fn form(self, payment: &Value) -> Value {
        match self {
            Self::V1 => in_version_1(payment),
            Self::V2 => payment.clone(),
        }
    }
}

/// A payment that is still to be signed and written down.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) account: Account,
    pub(crate) market: Market,
    pub(crate) authorization: Authorization,
    /// Whether the signature is replaced by its twin with the high `s`.
    pub(crate) high_s: bool,
    /// Made after signing, in order, on the form of version 2.
    pub(crate) edits: Vec<(&'static str, Value)>,
}

impl Recipe {
    /// A sound payment of the n-th buyer.
    pub(crate) fn of(world: &World, n: usize) -> Self {
        let chain = &world.services.chain;
        Self {
            account: chain.payers[n].clone(),
            market: chain.market(),
            authorization: world.authorization(n, AMOUNT),
            high_s: false,
            edits: Vec::new(),
        }
    }

    /// Replaces what stands at a JSON pointer, after signing.
    pub(crate) fn edit(&mut self, pointer: &'static str, value: impl Into<Value>) {
        self.edits.push((pointer, value.into()));
    }

    /// The request body.
    pub(crate) fn body(&self, version: Version) -> Value {
        let buyer = Buyer::new(&self.account, self.market.clone()).unwrap();
        let mut payment = buyer.request(&self.authorization).unwrap();
        if self.high_s {
            payment = with_signature(&payment, &high_s_twin(&signature(&payment)));
        }
        for (pointer, value) in &self.edits {
            set(&mut payment, pointer, value.clone());
        }
        version.form(&payment)
    }
}

/// Puts `value` at a JSON pointer. A parent that is no object, because an earlier edit removed it,
/// keeps things as they are.
pub(crate) fn set(payment: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    if let Some(Value::Object(parent)) = payment.pointer_mut(parent) {
        parent.insert(key.to_owned(), value);
    }
}

/// The same request with another value at a JSON pointer.
pub(crate) fn with(payment: &Value, pointer: &str, value: impl Into<Value>) -> Value {
    let mut changed = payment.clone();
    set(&mut changed, pointer, value.into());
    changed
}

/// The signature's bytes.
pub(crate) fn signature(payment: &Value) -> Vec<u8> {
    hex::decode(payment.pointer(SIGNATURE).unwrap().as_str().unwrap()).unwrap()
}

/// The same request with other bytes as the signature.
pub(crate) fn with_signature(payment: &Value, bytes: &[u8]) -> Value {
    with(payment, SIGNATURE, hex::encode_prefixed(bytes))
}

/// The other signature that recovers to the same signer.
pub(crate) fn high_s_twin(signature: &[u8]) -> Vec<u8> {
    let s = CURVE_ORDER - U256::from_be_slice(&signature[32..64]);
    let v = if signature[64] == 27 { 28 } else { 27 };
    [&signature[..32], &s.to_be_bytes::<32>(), &[v]].concat()
}

fn in_version_1(payment: &Value) -> Value {
    let named = |network: &Value| match network.as_str() {
        Some("eip155:1") => json!("ethereum"),
        Some("eip155:8453") => json!("base"),
        Some("eip155:84532") => json!("base-sepolia"),
        _ => network.clone(),
    };
    let version = |stated: &Value| if *stated == 2 { json!(1) } else { stated.clone() };
    let (sent, asked) = (&payment["paymentPayload"], &payment["paymentRequirements"]);
    let requirements = json!({
        "scheme": asked["scheme"],
        "network": named(&asked["network"]),
        "maxAmountRequired": asked["amount"],
        "resource": "https://shop.example/first-payment",
        "description": "",
        "mimeType": "application/json",
        "payTo": asked["payTo"],
        "maxTimeoutSeconds": asked["maxTimeoutSeconds"],
        "asset": asked["asset"],
        "extra": asked["extra"],
    });
    json!({
        "x402Version": version(&payment["x402Version"]),
        "paymentPayload": {
            "x402Version": version(&sent["x402Version"]),
            "scheme": sent["accepted"]["scheme"],
            "network": named(&sent["accepted"]["network"]),
            "payload": sent["payload"],
        },
        "paymentRequirements": requirements,
    })
}
