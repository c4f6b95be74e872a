//! Any bytes as a signature: reading and judging it never panics, and what counts as the payer's own
//! signature does recover to the payer.

#![no_main]

use std::sync::LazyLock;

use alloy::{
    primitives::{Address, B256, Bytes, Signature, U256, address, uint},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol_types::SolValue as _,
};
use libfuzzer_sys::fuzz_target;
use quittance::{
    domain::{
        Accepted, Amount, Authorization, AuthorizationNonce, Payment, PaymentRequest, Requirements,
        Scheme, TokenDomain, UnixTime, X402Version,
    },
    verify::{
        Consent, EcdsaSignature, Factories, Terms, Unwrapped, authorization_digest, repeats, terms,
    },
};

const ORDER: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);
const ASSET: Address = address!("833589fcd6edb6e08f4c7c32d4f71b54bda02913");
const NOW: UnixTime = UnixTime::from_seconds(1_767_225_600);
const MAGIC: [u8; 32] = {
    let mut magic = [0x64; 32];
    let mut n = 1;
    while n < 32 {
        magic[n] = 0x92;
        n += 2;
    }
    magic
};

/// A payment that one key signed, its digest, and the good signature.
static PAYMENT: LazyLock<(PaymentRequest, B256, Vec<u8>)> = LazyLock::new(|| {
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).expect("a key");
    let payee = Address::repeat_byte(9);
    let authorization = Authorization {
        payer: signer.address(),
        payee,
        amount: Amount::from_base_units(U256::from(10_000)),
        valid_after: U256::ZERO,
        valid_before: U256::MAX,
        nonce: AuthorizationNonce::from_bytes(B256::repeat_byte(1)),
    };
    let chain_id = "eip155:8453".parse().expect("a chain");
    let domain = TokenDomain { name: "USD Coin".to_owned(), version: "2".to_owned() };
    let digest = authorization_digest(chain_id, ASSET, &domain, &authorization);
    let signature = signer.sign_hash_sync(&digest).expect("a signature").as_bytes().to_vec();
    let request = PaymentRequest {
        version: X402Version::V2,
        payment: Payment {
            accepted: Accepted { scheme: Some(Scheme::Exact), chain_id: Some(chain_id) },
            authorization,
            signature: signature.clone().into(),
        },
        requirements: Requirements {
            scheme: Scheme::Exact,
            chain_id,
            asset: ASSET,
            payee,
            amount: authorization.amount,
            max_timeout_seconds: 300,
            token_domain: Some(domain),
            resource: None,
        },
    };
    (request, digest, signature)
});

fuzz_target!(|input: &[u8]| {
    let Some((way, rest)) = input.split_first() else { return };
    let (_, _, good) = &*PAYMENT;
    let spoilt = |mask: &[u8]| -> Vec<u8> {
        let mask = mask.iter().copied().chain(std::iter::repeat(0));
        good.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
    };
    let bytes = match way % 5 {
        // As it comes, and ending like a wrapper.
        0 => rest.to_vec(),
        1 => [rest, &MAGIC].concat(),
        // Nearly the good one, and its twin.
        2 => spoilt(rest),
        3 => {
            let mut twin = spoilt(rest);
            let s = ORDER.wrapping_sub(U256::from_be_slice(&twin[32..64]));
            twin[32..64].copy_from_slice(&s.to_be_bytes::<32>());
            twin[64] = 55_u8.wrapping_sub(twin[64]);
            twin
        }
        _ => {
            let (factory, rest) = rest.split_at(rest.len().min(20));
            let (n, mask) = rest.split_first().unwrap_or((&0, &[]));
            let (mask, calldata) = mask.split_at(mask.len().min(usize::from(*n)));
            let factory = Address::left_padding_from(factory);
            let parts = (factory, Bytes::copy_from_slice(calldata), Bytes::from(spoilt(mask)));
            [parts.abi_encode_params(), MAGIC.to_vec()].concat()
        }
    };
    let bytes = Bytes::from(bytes);
    parses_what_usdc_reads(&bytes);
    unwraps_what_is_wrapped(&bytes);
    judges_as_the_token_would(&bytes);
});

/// 65 bytes with four values of `v`, written with two of them.
fn parses_what_usdc_reads(bytes: &[u8]) {
    let parsed = EcdsaSignature::parse(bytes);
    let v = bytes.get(64).copied();
    let is_one = bytes.len() == 65 && v.is_some_and(|v| matches!(v, 0 | 1 | 27 | 28));
    assert_eq!(parsed.is_some(), is_one);
    let Some(parsed) = parsed else { return };
    let written = parsed.to_bytes();
    assert_eq!(written[..64], bytes[..64]);
    assert!(matches!(parsed.v(), 27 | 28) && written[64] == parsed.v());
    assert_eq!(v.map(|v| v % 27), Some(parsed.v() % 27));
    assert_eq!(EcdsaSignature::parse(&written), Some(parsed));
    assert_eq!(parsed.has_high_s(), U256::from_be_slice(&bytes[32..64]) > ORDER >> 1);
}

fn unwraps_what_is_wrapped(bytes: &Bytes) {
    let unwrapped = Unwrapped::of(bytes);
    if !bytes.ends_with(&MAGIC) {
        assert_eq!(unwrapped, Unwrapped { signature: bytes.clone(), deployment: None });
    }
    if let Some(deployment) = &unwrapped.deployment {
        assert!(!deployment.factory.is_zero() && !deployment.calldata.is_empty());
        let parts = (deployment.factory, deployment.calldata.clone(), unwrapped.signature.clone());
        let again = Bytes::from([parts.abi_encode_params(), MAGIC.to_vec()].concat());
        assert_eq!(Unwrapped::of(&again), unwrapped);
    }
}

fn judges_as_the_token_would(bytes: &Bytes) {
    let (request, digest, _) = &*PAYMENT;
    let mut request = request.clone();
    request.payment.signature = bytes.clone();
    let payer = request.payment.authorization.payer;
    let unwrapped = Unwrapped::of(bytes);
    for factories in [
        Factories::default(),
        Factories::of(unwrapped.deployment.as_ref().map(|deployment| deployment.factory)),
    ] {
        let terms: Terms = terms(&request, NOW, &factories).expect("only a chain can refuse it");
        assert_eq!(terms.digest(), *digest);
        match terms.consent() {
            Consent::Key(signature) => {
                assert_eq!(unwrapped.deployment, None, "its factory is called");
                assert!(recovers_to(signature, *digest, payer));
                assert_eq!(terms.wire_signature().as_ref(), signature.to_bytes());
            }
            Consent::Contract(kept) => {
                assert_eq!(kept.signature, unwrapped.signature);
                let may_be = unwrapped.deployment.as_ref().filter(|it| factories.allow(it.factory));
                assert_eq!(kept.deployment.as_ref(), may_be);
                assert_eq!(terms.wire_signature(), bytes);
            }
        }
        // A payment repeats itself, however it is signed.
        assert!(repeats(&request, *digest, bytes));
    }
    // And another only if the payer signed it.
    if repeats(&request, *digest, &[]) {
        let presented = EcdsaSignature::parse(bytes);
        assert!(bytes.is_empty() || presented.is_some_and(|it| recovers_to(&it, *digest, payer)));
    }
}

/// By another library than the service's.
fn recovers_to(signature: &EcdsaSignature, digest: B256, payer: Address) -> bool {
    let (r, s) = (U256::from_be_bytes(signature.r().0), U256::from_be_bytes(signature.s().0));
    let is_odd = signature.v() == 28;
    let low = if signature.has_high_s() {
        Signature::new(r, ORDER - s, !is_odd)
    } else {
        Signature::new(r, s, is_odd)
    };
    low.recover_address_from_prehash(&digest).is_ok_and(|signer| signer == payer)
}
