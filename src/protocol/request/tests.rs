//! Raw JSON in; a request or a refusal out.

use alloy::primitives::{U256, address, b256};
use serde_json::json;

use super::*;

const PAYER: Address = address!("f39fd6e51aad88f6f4ce6ab8827279cfffb92266");
const PAYEE: Address = address!("70997970c51812dc3a010c7d01b50e0d17dc79c8");
const USDC: Address = address!("036cbd53842c5426634e7929541ec2318f3dcf7e");

fn payload() -> Value {
    json!({
        "signature": format!("0x{}1b", "ab".repeat(64)),
        "authorization": {
            "from": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "to": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "value": "10000",
            "validAfter": "0",
            "validBefore": "4102444800",
            "nonce": "0x3721a9f077e6665bfc1328893daea30b5707587442e74f1470ae34a51ff914df",
        },
    })
}

fn v2() -> Value {
    let offer = json!({
        "scheme": "exact",
        "network": "eip155:84532",
        "amount": "10000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "maxTimeoutSeconds": 300,
        "extra": { "name": "USDC", "version": "2" },
    });
    json!({
        "x402Version": 2,
        "paymentPayload": {
            "x402Version": 2,
            "payload": payload(),
            "resource": { "url": "https://merchant.example/weather" },
            "accepted": offer,
        },
        "paymentRequirements": offer,
    })
}

fn v1() -> Value {
    json!({
        "x402Version": 1,
        "paymentPayload": {
            "x402Version": 1,
            "scheme": "exact",
            "network": "base-sepolia",
            "payload": payload(),
        },
        "paymentRequirements": {
            "scheme": "exact",
            "network": "base-sepolia",
            "maxAmountRequired": "10000",
            "resource": "https://merchant.example/weather",
            "description": "",
            "mimeType": "",
            "payTo": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "maxTimeoutSeconds": 300,
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "extra": { "name": "USDC", "version": "2" },
        },
    })
}

/// `request` with the value at `pointer` replaced or added; without it, if `value` is `None`.
fn with(mut request: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = request.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(key.to_owned(), value),
        None => parent.remove(key),
    };
    request
}

fn parse(request: &Value) -> Result<PaymentRequest, ParseError> {
    parse_request(request.to_string().as_bytes())
}

fn refused(request: &Value) -> Unparsed {
    match parse(request) {
        Err(ParseError::Refused(unparsed)) => unparsed,
        other => panic!("{request}: {other:?}"),
    }
}

#[test]
fn both_versions_say_the_same_payment() {
    for (version, request) in [(X402Version::V1, v1()), (X402Version::V2, v2())] {
        let chain_id = "eip155:84532".parse().unwrap();
        let expected = PaymentRequest {
            version,
            payment: Payment {
                accepted: Accepted { scheme: Some(Scheme::Exact), chain_id: Some(chain_id) },
                authorization: Authorization {
                    payer: PAYER,
                    payee: PAYEE,
                    amount: Amount::parse("10000").unwrap(),
                    valid_after: U256::ZERO,
                    valid_before: U256::from(4_102_444_800_u64),
                    nonce: AuthorizationNonce::from_bytes(b256!(
                        "3721a9f077e6665bfc1328893daea30b5707587442e74f1470ae34a51ff914df"
                    )),
                },
                signature: [vec![0xab; 64], vec![0x1b]].concat().into(),
            },
            requirements: Requirements {
                scheme: Scheme::Exact,
                chain_id,
                asset: USDC,
                payee: PAYEE,
                amount: Amount::parse("10000").unwrap(),
                max_timeout_seconds: 300,
                token_domain: Some(TokenDomain { name: "USDC".into(), version: "2".into() }),
                resource: Some("https://merchant.example/weather".into()),
            },
        };
        assert_eq!(parse(&request), Ok(expected));
    }
}

#[test]
fn what_is_no_json_object_is_malformed() {
    let deep = "[".repeat(100_000);
    let deep_inside = format!(r#"{{"paymentPayload":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    for body in [
        "",
        " ",
        "{",
        "null",
        "1",
        "\"x\"",
        "[]",
        r#"[2,{},{}]"#,
        "{}{}",
        r#"{"x402Version":1e999}"#,
        r#"{"x402Version":"\ud800"}"#,
        r#"{"x402Version":NaN}"#,
        &deep,
        &deep_inside,
    ] {
        let result = parse_request(body.as_bytes());
        let shown: String = body.chars().take(40).collect();
        assert!(matches!(result, Err(ParseError::Malformed(_))), "{shown}: {result:?}");
    }
    assert!(matches!(parse_request(b"{\"a\":\"\xff\"}"), Err(ParseError::Malformed(_))));
}

#[test]
fn the_version_may_stand_in_either_place_but_not_differ() {
    let (outer, inner) = ("/x402Version", "/paymentPayload/x402Version");
    for (request, ok) in [
        (with(v2(), outer, None), true),
        (with(v2(), outer, Some(Value::Null)), true),
        (with(v2(), inner, None), true),
        (with(v2(), outer, Some(json!(2.0))), true),
        (with(with(v2(), inner, None), outer, None), false),
        (with(v2(), outer, Some(json!(1))), false),
        (with(v2(), inner, Some(json!(1))), false),
        (with(v2(), inner, Some(json!("2"))), false),
        (with(v2(), outer, Some(json!("2"))), false),
        (with(with(v2(), inner, Some(json!(3))), outer, Some(json!(3))), false),
        (with(with(v2(), inner, Some(json!(0))), outer, Some(json!(0))), false),
        (with(with(v2(), inner, Some(json!("x"))), outer, Some(json!("x"))), false),
    ] {
        if ok {
            assert!(parse(&request).is_ok(), "{request}");
        } else {
            assert_eq!(refused(&request).refusal.reason, InvalidReason::X402Version, "{request}");
        }
    }
}

#[test]
fn of_a_repeated_key_the_last_counts() {
    let body = v2().to_string();
    let body = body.replace("\"scheme\":", "\"scheme\":\"upto\",\"scheme\":");
    assert!(parse_request(body.as_bytes()).is_ok());
    let body = body.replace("\"x402Version\":2", "\"x402Version\":2,\"x402Version\":7");
    assert!(parse_request(body.as_bytes()).is_err());
}

#[test]
fn unknown_keys_and_nulls_change_nothing() {
    for request in [v1(), v2()] {
        let plain = parse(&request);
        let mut extended = request;
        for parent in ["", "/paymentPayload", "/paymentPayload/payload", "/paymentRequirements"] {
            extended = with(extended, &format!("{parent}/unheardOf"), Some(json!([{ "a": 1 }])));
        }
        let nulls = ["/paymentPayload/extensions", "/paymentPayload/payload/permit2Authorization"];
        for pointer in nulls.into_iter().chain(["/paymentRequirements/outputSchema"]) {
            extended = with(extended, pointer, Some(Value::Null));
        }
        let long = Some(json!("d".repeat(10_000)));
        extended = with(extended, "/paymentRequirements/description", long);
        assert_eq!(parse(&extended), plain);
    }
}

#[test]
fn only_scheme_and_network_of_the_accepted_offer_are_read() {
    let accepted = |offer: Value| {
        parse(&with(v2(), "/paymentPayload/accepted", Some(offer))).unwrap().payment.accepted
    };
    let base = "eip155:8453".parse().ok();
    let exact = Some(Scheme::Exact);
    for (offer, scheme, chain_id) in [
        (json!({}), None, None),
        (json!({ "scheme": "exact", "network": "eip155:8453" }), exact, base),
        (json!({ "scheme": "upto", "network": "base", "amount": [] }), None, None),
        (json!({ "scheme": 1, "network": {} }), None, None),
    ] {
        assert_eq!(accepted(offer.clone()), Accepted { scheme, chain_id }, "{offer}");
    }
}

#[test]
fn a_token_domain_needs_both_halves() {
    for request in [v1(), v2()] {
        for extra in [
            Value::Null,
            json!({}),
            json!({ "name": "USDC" }),
            json!({ "version": "2" }),
            json!({ "name": "", "version": "2" }),
            json!({ "name": "USDC", "version": 2 }),
            json!({ "name": null, "version": "2" }),
            json!("USDC"),
            json!(["USDC", "2"]),
        ] {
            let request = with(request.clone(), "/paymentRequirements/extra", Some(extra.clone()));
            assert_eq!(parse(&request).unwrap().requirements.token_domain, None, "{extra}");
        }
        for (bytes, ok) in [(MAX_TOKEN_DOMAIN_BYTES, true), (MAX_TOKEN_DOMAIN_BYTES + 1, false)] {
            for key in ["name", "version"] {
                let pointer = format!("/paymentRequirements/extra/{key}");
                let request = with(request.clone(), &pointer, Some(json!("n".repeat(bytes))));
                assert_eq!(parse(&request).is_ok(), ok, "{key} of {bytes} bytes");
            }
        }
    }
}

#[test]
fn a_long_resource_is_cut_and_an_odd_one_ignored() {
    for (request, pointer) in
        [(v1(), "/paymentRequirements/resource"), (v2(), "/paymentPayload/resource/url")]
    {
        let longest = "é".repeat(MAX_RESOURCE_CHARS);
        for (value, kept) in [
            (json!(longest), Some(longest.clone())),
            (json!(format!("{longest}é")), Some(longest.clone())),
            (json!("a\0b"), Some("ab".to_owned())),
            (json!(5), None),
            (Value::Null, None),
        ] {
            let request = with(request.clone(), pointer, Some(value));
            assert_eq!(parse(&request).unwrap().requirements.resource, kept);
        }
    }
    for resource in [None, Some(Value::Null), Some(json!([]))] {
        let request = with(v2(), "/paymentPayload/resource", resource);
        assert_eq!(parse(&request).unwrap().requirements.resource, None);
    }
}

/// Each step spoils one thing more, from the last that is looked at to the first.
#[test]
fn refusals_come_in_order_of_precedence() {
    let authorization = "/paymentPayload/payload/authorization";
    let steps = [
        ("/paymentPayload/payload/signature", json!(1), InvalidReason::Payload, "signature"),
        (&format!("{authorization}/nonce"), json!("0x12"), InvalidReason::Payload, "nonce"),
        (&format!("{authorization}/validBefore"), json!(-1), InvalidReason::Payload, "validBefore"),
        (&format!("{authorization}/validAfter"), json!(0.5), InvalidReason::Payload, "validAfter"),
        (&format!("{authorization}/value"), json!("1.0"), InvalidReason::Payload, "value"),
        (&format!("{authorization}/to"), json!("alice"), InvalidReason::Payload, "to"),
        (&format!("{authorization}/from"), json!({}), InvalidReason::Payload, "from"),
        (authorization, json!([]), InvalidReason::Payload, "payload.authorization"),
        (
            "/paymentPayload/payload/permit2Authorization",
            json!({}),
            InvalidReason::UnsupportedPayloadType,
            "permit2Authorization",
        ),
        ("/paymentPayload/payload", json!("x"), InvalidReason::Payload, "paymentPayload.payload"),
        ("/paymentPayload/accepted", json!(2), InvalidReason::Payload, "paymentPayload.accepted"),
        (
            "/paymentRequirements/maxTimeoutSeconds",
            json!(0),
            InvalidReason::PaymentRequirements,
            "paymentRequirements.maxTimeoutSeconds",
        ),
        (
            "/paymentRequirements/amount",
            json!("ten"),
            InvalidReason::PaymentRequirements,
            "paymentRequirements.amount",
        ),
        (
            "/paymentRequirements/payTo",
            Value::Null,
            InvalidReason::PaymentRequirements,
            "paymentRequirements.payTo",
        ),
        (
            "/paymentRequirements/asset",
            json!("erc20:0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
            InvalidReason::PaymentRequirements,
            "paymentRequirements.asset",
        ),
        ("/paymentRequirements/network", json!("solana:5"), InvalidReason::Network, "network"),
        (
            "/paymentRequirements/scheme",
            json!("upto"),
            InvalidReason::UnsupportedScheme,
            "paymentRequirements.scheme",
        ),
        ("/paymentPayload", json!([]), InvalidReason::Payload, "paymentPayload: "),
        (
            "/paymentRequirements",
            json!([]),
            InvalidReason::PaymentRequirements,
            "paymentRequirements: ",
        ),
        ("/x402Version", json!(3), InvalidReason::X402Version, "x402Version"),
    ];
    let mut request = v2();
    for (pointer, value, reason, named) in steps {
        request = with(request, pointer, Some(value));
        let Refusal { reason: found, message } = refused(&request).refusal;
        assert_eq!((found, message.contains(named)), (reason, true), "{pointer}: {message}");
    }
}

#[test]
fn messages_name_the_field_and_never_quote_a_signature() {
    let signature = "0xdeadbeef5";
    for (pointer, value, message) in [
        (
            "/paymentPayload/payload/authorization/nonce",
            json!("0x12"),
            "paymentPayload.payload.authorization.nonce: expected 32 bytes of hex, \
             found a string of 4 bytes",
        ),
        (
            "/paymentPayload/payload/signature",
            json!(signature),
            "paymentPayload.payload.signature: expected 0x and at most 8192 bytes of hex, \
             found a string of 11 bytes",
        ),
        (
            "/paymentRequirements/network",
            json!("base"),
            "paymentRequirements.network: \"base\" is not an EVM chain in CAIP-2, \
             such as `eip155:8453`",
        ),
        (
            "/paymentRequirements",
            Value::Null,
            "paymentRequirements: expected an object, found nothing",
        ),
    ] {
        assert_eq!(refused(&with(v2(), pointer, Some(value))).refusal.message, message);
    }
    for key in ["scheme", "network"] {
        let pointer = format!("/paymentRequirements/{key}");
        let request = with(v2(), &pointer, Some(json!("\u{7}".repeat(1_000_000))));
        assert!(refused(&request).refusal.message.len() < 1_000);
    }
}

#[test]
fn a_refusal_carries_network_and_payer_where_they_can_be_read() {
    let spoilt = with(v2(), "/paymentRequirements/asset", None);
    let network = |value: Value| with(spoilt.clone(), "/paymentRequirements/network", Some(value));
    let payer = |value: Value| {
        with(spoilt.clone(), "/paymentPayload/payload/authorization/from", Some(value))
    };
    let permit2 = json!({ "permit2Authorization": { "from": PAYER.to_string() } });
    let longest = "n".repeat(MAX_NETWORK_BYTES);
    for (request, network, payer) in [
        (spoilt.clone(), "eip155:84532", Some(PAYER)),
        (network(json!("solana:mainnet")), "solana:mainnet", Some(PAYER)),
        (network(json!(longest)), longest.as_str(), Some(PAYER)),
        (network(json!(format!("{longest}n"))), "", Some(PAYER)),
        (network(json!(8453)), "", Some(PAYER)),
        (payer(json!("0x12")), "eip155:84532", None),
        (
            with(spoilt.clone(), "/paymentPayload/payload", Some(permit2)),
            "eip155:84532",
            Some(PAYER),
        ),
        (json!({}), "", None),
    ] {
        let unparsed = refused(&request);
        assert_eq!((unparsed.network.as_str(), unparsed.payer), (network, payer), "{request}");
    }
}

#[test]
fn an_odd_value_anywhere_is_read_or_refused_but_never_panics() {
    let odd_values = [
        Some(Value::Null),
        Some(json!(true)),
        Some(json!(0)),
        Some(json!(-1)),
        Some(json!(1.5)),
        Some(json!(1e300)),
        Some(json!(u64::MAX)),
        Some(json!(i64::MIN)),
        Some(json!("")),
        Some(json!("0x")),
        Some(json!("0x0x")),
        Some(json!("\0")),
        Some(json!("é".repeat(10_000))),
        Some(json!(format!("0x{}", "f".repeat(100_000)))),
        Some(json!("9".repeat(100_000))),
        Some(json!([])),
        Some(json!([[{}]])),
        Some(json!({})),
        Some(json!({ "permit2Authorization": 1, "x402Version": [], "url": {} })),
        None,
    ];
    let expected = [
        InvalidReason::X402Version,
        InvalidReason::PaymentRequirements,
        InvalidReason::UnsupportedScheme,
        InvalidReason::Network,
        InvalidReason::Payload,
        InvalidReason::UnsupportedPayloadType,
    ];
    let mut n_refused = 0;
    for request in [v1(), v2()] {
        for pointer in pointers(&request) {
            for odd in &odd_values {
                let spoilt = with(request.clone(), &pointer, odd.clone());
                match parse(&spoilt) {
                    Ok(_) => (),
                    Err(ParseError::Refused(Unparsed { refusal, .. })) => {
                        n_refused += 1;
                        assert!(expected.contains(&refusal.reason), "{pointer}: {refusal:?}");
                        assert!(refusal.message.len() < 1_000, "{pointer}");
                    }
                    Err(ParseError::Malformed(message)) => panic!("{pointer}: {message}"),
                }
            }
        }
    }
    assert!(n_refused > 500, "only {n_refused} refusals");
}

/// A pointer to every member of every object.
fn pointers(value: &Value) -> Vec<String> {
    let Some(members) = value.as_object() else { return Vec::new() };
    let below = |(key, value): (&String, &Value)| {
        let path = format!("/{key}");
        let inner = pointers(value).into_iter().map(|rest| format!("{path}{rest}"));
        [path.clone()].into_iter().chain(inner.collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    members.iter().flat_map(below).collect()
}
