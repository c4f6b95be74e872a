//! What owners of paying wallets sign, held against viem: `tests/interop/spending-policy-vectors.mjs` made
//! `spending_policy.json`, and knows nothing of our code.

use alloy::primitives::{Address, B256};
use quittance::{
    policies::{read_document, read_question, signing_types},
    verify::EcdsaSignature,
};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("spending_policy.json")).unwrap()
}

#[test]
fn every_document_has_the_digest_that_viem_signed() {
    let file = vectors();
    let owner: Address = file["owner"].as_str().unwrap().parse().unwrap();
    let documents = file["documents"].as_array().unwrap();
    assert_eq!(documents.len(), 6);
    for vector in documents {
        let name = &vector["name"];
        let digest: B256 = vector["digest"].as_str().unwrap().parse().unwrap();
        let signed = read_document(&vector["body"]).unwrap();
        assert_eq!(signed.document.digest(), digest, "{name}");
        let signature = EcdsaSignature::parse(&signed.signature).unwrap();
        assert_eq!(signature.signer(digest), Some(owner), "{name}");
        // It is told as it was signed.
        let kind = signed.document.kind().as_str();
        assert_eq!(spelled(&signed.document.to_json()), spelled(&vector["body"][kind]), "{name}");
    }
}

#[test]
fn a_question_has_the_digest_that_viem_signed() {
    let file = vectors();
    let digest: B256 = file["question"]["digest"].as_str().unwrap().parse().unwrap();
    let signed = read_question(&file["question"]["body"]).unwrap();
    assert_eq!(signed.request.digest(), digest);
}

#[test]
fn the_types_that_are_told_are_those_that_viem_signed_with() {
    assert_eq!(signing_types()["types"], vectors()["types"]);
}

/// Without the case of hex digits.
fn spelled(value: &Value) -> Value {
    serde_json::from_str(&value.to_string().to_lowercase()).unwrap()
}
