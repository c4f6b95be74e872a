//! Every vector gets its verdict: raw JSON in, raw JSON out, the chain's facts from the vector.
//!
//! `vectors.json` holds those of the project's reference vectors that are of `exact` with EIP-3009, with
//! payers of every kind. Their digests and signatures were made with viem and checked with eth-account.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and an absent JSON member reads as null"
)]

mod spending;

use alloy::primitives::{Address, B256, U256, b256};
use quittance::{
    domain::{
        Amount, Authorization, InvalidReason, PaymentRequest, Refusal, TokenDomain, UnixTime,
    },
    protocol::{Code, ParseError, VerifyAnswer, parse_request},
    verify::{ChainSnapshot, Factories, Simulation, against, authorization_digest, terms},
};
use serde_json::{Value, json};

/// The reasons and error types that `reference/x402.md` sections 2.3, 2.7 and 7.1 list.
const KNOWN_REASONS: [&str; 34] = [
    "invalid_exact_evm_scheme",
    "invalid_exact_evm_missing_eip712_domain",
    "invalid_exact_evm_network_mismatch",
    "eip6492_factory_not_allowed",
    "invalid_exact_evm_signature",
    "invalid_exact_evm_recipient_mismatch",
    "invalid_exact_evm_payload_authorization_valid_before",
    "invalid_exact_evm_payload_authorization_valid_after",
    "invalid_exact_evm_payload_authorization_value_mismatch",
    "invalid_exact_evm_authorization_value",
    "asset_not_deployed_contract",
    "invalid_exact_evm_eip3009_not_supported",
    "invalid_exact_evm_nonce_already_used",
    "invalid_exact_evm_token_name_mismatch",
    "invalid_exact_evm_token_version_mismatch",
    "invalid_exact_evm_insufficient_balance",
    "invalid_exact_evm_transaction_simulation_failed",
    "invalid_exact_evm_transaction_failed",
    "invalid_x402_version",
    "invalid_payment_requirements",
    "unsupported_scheme",
    "invalid_network",
    "invalid_payload",
    "unsupported_payload_type",
    "settlement_pending",
    "duplicate_settlement",
    "unexpected_verify_error",
    "unexpected_settle_error",
    "unauthorized",
    "forbidden",
    "idempotency_error",
    "invalid_request",
    "rate_limit_exceeded",
    "service_unavailable",
];

/// What no client has a word for, because it is a rule of the house and no fault of the payment.
const OWN_REASONS: [&str; 7] = [
    "address_denied",
    "spending_policy_payee_not_allowed",
    "spending_policy_expired",
    "spending_policy_exceeded",
    "cap_exceeded",
    "gas_budget_exceeded",
    "below_floor_price",
];
/// Told with statuses other than 200, of which clients read the number, or under `/v1`, which they never ask.
const OWN_CODES: [&str; 3] = ["merchant_suspended", "not_found", "conflict"];

#[test]
fn every_vector_gets_its_verdict() {
    let file = vectors();
    let now = UnixTime::from_seconds(file["now"].as_u64().unwrap());
    for vector in file["vectors"].as_array().unwrap() {
        let id = &vector["id"];
        let expect = &vector["expect"];
        let answer = serde_json::to_value(verdict(vector, now)).unwrap();
        assert_eq!(answer["isValid"], expect["verify"] == "valid", "{id}: {answer}");
        assert_eq!(answer["invalidReason"], expect["invalidReason"], "{id}: {answer}");
        assert_eq!(answer["payer"], expect["payer"], "{id}: {answer}");
        assert_eq!(answer["invalidMessage"].is_string(), !answer["isValid"].as_bool().unwrap());
    }
}

#[test]
fn every_digest_is_the_one_that_was_signed() {
    let file = vectors();
    for vector in file["vectors"].as_array().unwrap() {
        let request = request(vector);
        let authorization = request.payment.authorization;
        let signed = digest_in(&vector["domain"], &authorization);
        assert_eq!(json!(signed), vector["digest"], "{}", vector["id"]);
    }
}

/// A request whose domain is the signed one must yield the same digest on its way through `terms`.
#[test]
fn a_valid_payment_carries_the_digest_that_was_signed() {
    let file = vectors();
    let now = UnixTime::from_seconds(file["now"].as_u64().unwrap());
    let valid = |vector: &&Value| vector["expect"]["verify"] == "valid";
    let mut n_valid = 0;
    for vector in file["vectors"].as_array().unwrap().iter().filter(valid) {
        let terms = terms(&request(vector), now, &factories(vector)).unwrap();
        assert_eq!(json!(terms.digest()), vector["digest"], "{}", vector["id"]);
        n_valid += 1;
    }
    assert_eq!(n_valid, 10);
}

#[test]
fn our_reasons_are_words_that_clients_know_or_rules_of_the_house() {
    for reason in InvalidReason::ALL {
        let is_known = KNOWN_REASONS.contains(&reason.as_str());
        assert_ne!(is_known, OWN_REASONS.contains(&reason.as_str()), "{reason}");
    }
    for code in Code::ALL {
        let is_known = KNOWN_REASONS.contains(&code.as_str());
        assert_ne!(is_known, OWN_CODES.contains(&code.as_str()), "{}", code.as_str());
    }
}

/// A payment that cannot be made, though the names are right: if the token signs under others, that is
/// said beside its own word, and is no reason of its own.
#[test]
fn a_domain_that_is_not_the_tokens_is_told_with_its_revert() {
    let file = vectors();
    let now = UnixTime::from_seconds(file["now"].as_u64().unwrap());
    let vectors = file["vectors"].as_array().unwrap();
    let vector = vectors.iter().find(|vector| vector["id"] == "eip3009-ok-base").unwrap();
    let request = request(vector);
    let told = |domain_separator, balance: u64, token_name: &str| {
        let snapshot = ChainSnapshot {
            simulation: Simulation::Reverts("FiatTokenV2: invalid signature".to_owned()),
            domain_separator,
            balance: Some(Amount::from_base_units(U256::from(balance))),
            token_name: Some(token_name.to_owned()),
            ..snapshot(&vector["chainState"], &request)
        };
        let terms = terms(&request, now, &factories(vector)).unwrap();
        against(terms, &snapshot).unwrap_err()
    };
    let (name, simulation) = ("USD Coin", InvalidReason::SimulationFailed);
    // USDC's on Base (x402 reference 3.2).
    let right = b256!("02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f");
    for unknown_or_right in [None, Some(right)] {
        let refusal = told(unknown_or_right, u64::MAX, name);
        assert_eq!(refusal, Refusal::new(simulation, "FiatTokenV2: invalid signature"));
    }
    let refusal = told(Some(B256::ZERO), u64::MAX, name);
    assert_eq!(refusal.reason, simulation);
    for word in ["FiatTokenV2: invalid signature; ", "DOMAIN_SEPARATOR", "\"USD Coin\"", "8453"] {
        assert!(refusal.message.contains(word), "{}", refusal.message);
    }
    // What comes before it in the order of reasons is told before it.
    let earlier = InvalidReason::InsufficientBalance;
    assert_eq!(told(Some(B256::ZERO), 0, name).reason, earlier);
    let earlier = InvalidReason::TokenNameMismatch;
    assert_eq!(told(Some(B256::ZERO), u64::MAX, "USDC").reason, earlier);
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

fn verdict(vector: &Value, now: UnixTime) -> VerifyAnswer {
    let parsed = parse_request(vector["request"].to_string().as_bytes());
    let request = match parsed {
        Ok(request) => request,
        Err(ParseError::Refused(unparsed)) => {
            let Refusal { reason, message } = unparsed.refusal;
            return VerifyAnswer::invalid(reason, message, unparsed.payer);
        }
        Err(ParseError::Malformed(message)) => panic!("{}: {message}", vector["id"]),
    };
    let payer = request.payment.authorization.payer;
    let snapshot = snapshot(&vector["chainState"], &request);
    match terms(&request, now, &factories(vector)).and_then(|terms| against(terms, &snapshot)) {
        Ok(_) => VerifyAnswer::valid(payer),
        Err(Refusal { reason, message }) => VerifyAnswer::invalid(reason, message, Some(payer)),
    }
}

fn factories(vector: &Value) -> Factories {
    let named = vector["factories"].as_array().cloned().unwrap_or_default();
    Factories::of(named.iter().map(|address| address.as_str().unwrap().parse().unwrap()))
}

fn request(vector: &Value) -> PaymentRequest {
    parse_request(vector["request"].to_string().as_bytes()).unwrap()
}

fn snapshot(state: &Value, request: &PaymentRequest) -> ChainSnapshot {
    let has_code = |address: Address| !state["code"][address.to_checksum(None)].is_null();
    let simulation = match state["simulation"].as_str() {
        Some("revert") => Simulation::Reverts(state["revertReason"].as_str().unwrap().to_owned()),
        other => {
            assert_eq!(other, None, "a simulation either reverts or is not mentioned");
            Simulation::Succeeds { gas_used: 80_000 }
        }
    };
    let payer_has_code = has_code(request.payment.authorization.payer);
    // The token asks the payer's code itself, and reverts if it refuses.
    let signature_accepted = state["erc1271"] == "0x1626ba7e";
    let simulation = if payer_has_code && !signature_accepted {
        Simulation::Reverts("FiatTokenV2: invalid signature".to_owned())
    } else {
        simulation
    };
    let balance = state["balance"].as_str().map(|text| Amount::parse(text).unwrap());
    ChainSnapshot {
        block_number: 1,
        block_time: UnixTime::from_seconds(1_767_225_600),
        payer_has_code,
        signature_accepted,
        asset_has_code: has_code(request.requirements.asset),
        simulation,
        authorization_used: Some(state["nonceUsed"].as_bool().unwrap_or_default()),
        token_name: state["tokenName"].as_str().map(str::to_owned),
        token_version: Some(state["tokenVersion"].as_str().unwrap_or("2").to_owned()),
        domain_separator: None,
        balance: Some(balance.unwrap_or(Amount::from_base_units(U256::MAX))),
    }
}

fn digest_in(domain: &Value, authorization: &Authorization) -> B256 {
    let text = |key: &str| domain[key].as_str().unwrap().to_owned();
    let chain_id = format!("eip155:{}", domain["chainId"]).parse().unwrap();
    let asset = text("verifyingContract").parse().unwrap();
    let token_domain = TokenDomain { name: text("name"), version: text("version") };
    authorization_digest(chain_id, asset, &token_domain, authorization)
}
