//! Which reason a bad payment gets, judged by a real token, in the order of the reference (x402
//! reference 2.3): the first that applies.

use alloy::{
    primitives::{Address, Bytes, U256, address, hex},
    sol,
    sol_types::{SolCall as _, SolValue as _},
};
use quittance::{domain::AuthorizationNonce, verify::Factories};
use serde_json::{Value, json};

use crate::{
    callers::{assert_shape, hash, reason},
    payments::{
        AMOUNT, NOWHERE, Recipe, SIGNATURE, VERSIONS, Version, high_s_twin, signature, with,
        with_signature,
    },
    support::{Service, World, now},
};

/// Has code, and answers neither `authorizationState` nor `name`.
const MULTICALL3: Address = address!("ca11bde05977b3631167028862be2a173976ca11");

sol! {
    function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s);
}

/// A way to spoil a payment, and the reason it then gets.
type Spoil = (&'static str, fn(&mut Recipe, &World, AuthorizationNonce));

/// In order of precedence. Scheme and network come before the other requirements, because those of
/// another scheme have other fields.
const SPOILS: [Spoil; 22] = [
    ("invalid_x402_version", |p, _, _| {
        p.edit("/x402Version", 3);
        p.edit("/paymentPayload/x402Version", 3);
    }),
    ("unsupported_scheme", |p, _, _| p.edit("/paymentRequirements/scheme", "upto")),
    ("invalid_network", |p, _, _| p.edit("/paymentRequirements/network", "solana:mainnet")),
    ("invalid_payment_requirements", |p, _, _| p.edit("/paymentRequirements/payTo", Value::Null)),
    ("invalid_payload", |p, _, _| p.edit("/paymentPayload/payload", Value::Null)),
    ("unsupported_payload_type", |p, _, _| {
        p.edit("/paymentPayload/payload/permit2Authorization", json!({ "from": NOWHERE }));
    }),
    // A network that exists and is not served here.
    ("invalid_network", |p, _, _| p.edit("/paymentRequirements/network", "eip155:1")),
    ("invalid_exact_evm_scheme", |p, _, _| p.edit("/paymentPayload/accepted/scheme", "upto")),
    ("invalid_exact_evm_missing_eip712_domain", |p, _, _| {
        p.edit("/paymentRequirements/extra", json!({ "name": "USD Coin" }));
    }),
    ("invalid_exact_evm_network_mismatch", |p, _, _| {
        p.edit("/paymentPayload/accepted/network", "eip155:84532");
    }),
    ("eip6492_factory_not_allowed", |p, _, _| {
        let wrapped = (NOWHERE, Bytes::from([1]), Bytes::from([0x11; 65])).abi_encode_params();
        p.edit(SIGNATURE, hex::encode_prefixed([wrapped, [0x64, 0x92].repeat(16)].concat()));
    }),
    ("invalid_exact_evm_signature", |p, _, _| p.edit(SIGNATURE, hex::encode_prefixed([0x11; 65]))),
    ("invalid_exact_evm_recipient_mismatch", |p, _, _| {
        p.edit("/paymentRequirements/payTo", NOWHERE.to_string());
    }),
    ("invalid_exact_evm_payload_authorization_valid_before", |p, _, _| {
        p.authorization.valid_before = U256::from(now().seconds() - 1);
    }),
    ("invalid_exact_evm_payload_authorization_valid_after", |p, _, _| {
        p.authorization.valid_after = U256::from(now().seconds() + 1_000);
    }),
    ("invalid_exact_evm_payload_authorization_value_mismatch", |p, _, _| {
        p.edit("/paymentRequirements/amount", (AMOUNT - 1).to_string());
    }),
    ("asset_not_deployed_contract", |p, _, _| p.market.asset = NOWHERE),
    ("invalid_exact_evm_eip3009_not_supported", |p, _, _| p.market.asset = MULTICALL3),
    ("invalid_exact_evm_nonce_already_used", |p, world, used| {
        p.account = world.services.chain.payers[0].clone();
        p.authorization.payer = p.account.address;
        p.authorization.nonce = used;
    }),
    ("invalid_exact_evm_token_name_mismatch", |p, _, _| p.market.token_name = "USDC".to_owned()),
    ("invalid_exact_evm_token_version_mismatch", |p, _, _| p.market.token_version = "1".to_owned()),
    ("invalid_exact_evm_insufficient_balance", |p, world, _| {
        p.account = world.services.chain.pauper.clone();
        p.authorization.payer = p.account.address;
    }),
];

/// What version 1 calls the same thing.
fn expected(version: Version, reason: &'static str) -> &'static str {
    match (version, reason) {
        (Version::V1, "invalid_exact_evm_payload_authorization_value_mismatch") => {
            "invalid_exact_evm_authorization_value"
        }
        _ => reason,
    }
}

/// A nonce that the first buyer has used on chain, behind the service's back.
async fn used_nonce(world: &World) -> AuthorizationNonce {
    let payment = Recipe::of(world, 0);
    let body = payment.body(Version::V2);
    let (signature, authorization) = (signature(&body), payment.authorization);
    let call = transferWithAuthorizationCall {
        from: authorization.payer,
        to: authorization.payee,
        value: authorization.amount.base_units(),
        validAfter: authorization.valid_after,
        validBefore: authorization.valid_before,
        nonce: *authorization.nonce.as_bytes(),
        v: signature[64],
        r: alloy::primitives::B256::from_slice(&signature[..32]),
        s: alloy::primitives::B256::from_slice(&signature[32..64]),
    };
    submit(world, call.abi_encode()).await;
    authorization.nonce
}

/// Calls USDC as the stranger.
async fn submit(world: &World, data: Vec<u8>) {
    let chain = &world.services.chain;
    let stranger = chain.stranger.address;
    world.node.call("anvil_impersonateAccount", json!([stranger])).await;
    let request = json!({ "from": stranger, "to": chain.usdc, "data": hex::encode_prefixed(data), "gas": "0x493e0" });
    let sent = world.node.call("eth_sendTransaction", json!([request])).await;
    world.node.mine(1).await;
    let receipt = world.node.receipt(sent.as_str().unwrap().parse().unwrap()).await.unwrap();
    assert_eq!(receipt["status"], json!("0x1"), "{receipt}");
}

/// Both routes refuse `payment` for that reason, and nothing is claimed.
async fn assert_refused(service: &Service, payment: &Value, expected: &str, what: &str) {
    for path in ["/verify", "/settle"] {
        let answer = service.post(path, payment).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        assert_shape(path, &answer.json());
        assert_eq!(reason(&answer.json()), Some(expected), "{what} at {path}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_reasons_the_first_is_told() {
    let world = World::automine().await;
    let service = world.service().await;
    let used = used_nonce(&world).await;
    for version in VERSIONS {
        for (n, (first, spoil_first)) in SPOILS.iter().enumerate() {
            let mut alone = Recipe::of(&world, 1);
            spoil_first(&mut alone, &world, used);
            let body = alone.body(version);
            assert_refused(&service, &body, expected(version, first), &format!("{first} alone"))
                .await;
            for (second, spoil_second) in &SPOILS[n + 1..] {
                let mut both = Recipe::of(&world, 1);
                spoil_second(&mut both, &world, used);
                spoil_first(&mut both, &world, used);
                let answer = service.verify(&both.body(version)).await;
                let reason = reason(&answer);
                assert_eq!(reason, Some(expected(version, first)), "with {second}: {answer}");
            }
        }
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_the_token_takes_is_settled_and_no_other() {
    let world = World::automine().await;
    let service = world.service().await;
    let signature_reason = "invalid_exact_evm_signature";
    for version in VERSIONS {
        let body = world.payment(0, AMOUNT);
        let signed = signature(&body);
        let compact = {
            let mut bytes = signed[..64].to_vec();
            bytes[32] |= if signed[64] == 28 { 0x80 } else { 0 };
            bytes
        };
        let other_payment = signature(&world.payment(0, AMOUNT));
        let other_payer =
            Recipe { account: world.services.chain.payers[1].clone(), ..Recipe::of(&world, 0) };
        for (what, bytes) in [
            ("no bytes", Vec::new()),
            ("EIP-2098", compact),
            ("64 bytes", signed[..64].to_vec()),
            ("66 bytes", [&signed[..], &[0]].concat()),
            ("v 26", [&signed[..64], &[26]].concat()),
            ("v 29", [&signed[..64], &[29]].concat()),
            ("v 2", [&signed[..64], &[2]].concat()),
            ("the other v", [&signed[..64], &[55 - signed[64]]].concat()),
            ("all zero", vec![0; 65]),
            ("of another payment", other_payment),
        ] {
            let forged = version.form(&with_signature(&body, &bytes));
            assert_refused(&service, &forged, signature_reason, what).await;
        }
        let forged = other_payer.body(version);
        let stated = with(
            &forged,
            "/paymentPayload/payload/authorization/from",
            world.services.chain.payers[0].address.to_string(),
        );
        assert_refused(&service, &stated, signature_reason, "of another payer").await;
        let malleable = version.form(&with_signature(&body, &high_s_twin(&signed)));
        let simulation = "invalid_exact_evm_transaction_simulation_failed";
        assert_refused(&service, &malleable, simulation, "high s").await;
        assert_eq!(world.count("select count(*) from settlement").await, 0);
    }

    let mut n_paid = 0;
    for version in VERSIONS {
        for n in 0..3 {
            // Both parities turn up sooner or later; each is settled as 0 or 1, and as signed.
            let body = world.payment(n, AMOUNT);
            let mut bytes = signature(&body);
            bytes[64] -= if n == 2 { 0 } else { 27 };
            let payment = version.form(&with_signature(&body, &bytes));
            assert_eq!(service.verify(&payment).await["isValid"], json!(true));
            let answer = service.settle(&payment).await;
            assert_eq!(answer["success"], json!(true), "{answer}");
            assert!(world.node.receipt(hash(&answer)).await.is_some());
            n_paid += 1;
        }
    }
    assert_eq!(world.payee_balance().await, n_paid * AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_refused_from_six_seconds_before_it_expires() {
    const VALID_BEFORE: &str = "invalid_exact_evm_payload_authorization_valid_before";
    let world = World::automine().await;
    let service = world.service().await;
    for version in VERSIONS {
        let mut late = Recipe::of(&world, 0);
        late.authorization.valid_before = U256::from(now().seconds() + 5);
        assert_refused(&service, &late.body(version), VALID_BEFORE, "5 seconds").await;

        // Judged by the same second on both sides of the answer, so by that second in between.
        let mut n_tries = 0;
        loop {
            let asked_at = now();
            let mut in_time = Recipe::of(&world, 0);
            in_time.authorization.valid_before = U256::from(asked_at.seconds() + 6);
            let answer = service.verify(&in_time.body(version)).await;
            if now() == asked_at {
                assert_eq!(answer["isValid"], json!(true), "{answer}");
                break;
            }
            n_tries += 1;
            assert!(n_tries < 50, "no answer came within its second");
        }
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_valid_from_the_second_after_valid_after() {
    const VALID_AFTER: &str = "invalid_exact_evm_payload_authorization_valid_after";
    let world = World::automine().await;
    let service = world.service().await;
    for version in VERSIONS {
        let mut early = Recipe::of(&world, 0);
        early.authorization.valid_after = U256::from(now().seconds() + 30);
        assert_refused(&service, &early.body(version), VALID_AFTER, "30 seconds early").await;

        // The token compares with its block's time, and wants it strictly later.
        world.node.mine(1).await;
        let latest = world.node.call("eth_getBlockByNumber", json!(["latest", false])).await;
        let mined_at = latest["timestamp"].as_str().unwrap().parse::<U256>().unwrap();
        let mut in_time = Recipe::of(&world, 0);
        in_time.authorization.valid_after = mined_at - U256::from(1);
        let answer = service.verify(&in_time.body(version)).await;
        assert_eq!(answer["isValid"], json!(true), "{answer}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_coin_can_be_paid_and_not_one_more() {
    let world = World::automine().await;
    let service = world.service().await;
    let chain = &world.services.chain;
    let holds = world.node.token_balance(chain.usdc, chain.payers[0].address).await;
    for version in VERSIONS {
        let too_much = version.form(&world.payment(0, holds + 1));
        let reason = "invalid_exact_evm_insufficient_balance";
        assert_refused(&service, &too_much, reason, "one more").await;
    }
    let everything = world.payment(0, holds);
    assert_eq!(service.verify(&everything).await["isValid"], json!(true));
    assert_eq!(service.settle(&everything).await["success"], json!(true));
    assert_eq!(world.payee_balance().await, holds);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_with_code_is_refused_however_it_signed() {
    let world = World::automine().await;
    let service = world.service().await;
    let payer = world.services.chain.payers[0].address;
    for (what, code) in [
        ("EIP-7702", format!("0xef0100{}", hex::encode(MULTICALL3))),
        ("a contract that agrees", "0x60206000f3".to_owned()),
    ] {
        world.node.call("anvil_setCode", json!([payer, code])).await;
        world.node.mine(1).await;
        for version in VERSIONS {
            let payment = version.form(&world.payment(0, AMOUNT));
            assert_refused(&service, &payment, "invalid_exact_evm_signature", what).await;
        }
    }
    world.node.call("anvil_setCode", json!([payer, "0x"])).await;
    world.node.mine(1).await;
    assert_eq!(service.verify(&world.payment(0, AMOUNT)).await["isValid"], json!(true));
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_up_behind_our_back_is_refused_by_the_chain() {
    let world = World::automine().await;
    let service = world.service().await;
    let used = used_nonce(&world).await;
    for version in VERSIONS {
        let mut again = Recipe::of(&world, 0);
        again.authorization.nonce = used;
        let reason = "invalid_exact_evm_nonce_already_used";
        assert_refused(&service, &again.body(version), reason, "a used nonce").await;
        // The same nonce of another payer is another authorization.
        let mut other = Recipe::of(&world, 1);
        other.authorization.nonce = used;
        assert_eq!(service.verify(&other.body(version)).await["isValid"], json!(true));
    }
    assert_eq!(world.payee_balance().await, AMOUNT);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_decides_and_not_what_the_buyer_repeats_of_it() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT);
    // The rest of `accepted`, unknown keys and nulls change nothing.
    for (pointer, value) in [
        ("/paymentPayload/accepted/amount", json!("1")),
        ("/paymentPayload/accepted/asset", json!(NOWHERE)),
        ("/paymentPayload/accepted/payTo", json!(NOWHERE)),
        ("/paymentPayload/accepted/maxTimeoutSeconds", json!("x")),
        ("/paymentPayload/accepted/extra", json!(null)),
        ("/paymentPayload/resource", json!(null)),
        ("/paymentPayload/extensions", json!({ "bazaar": { "info": ["a", 1, null] } })),
        ("/paymentPayload/x402Version", json!(null)),
        ("/paymentPayload/unknown", json!([1, 2])),
        ("/paymentRequirements/unknown", json!({})),
        ("/paymentRequirements/extra/paymentFlow", json!("upfront")),
        ("/paymentRequirements/maxTimeoutSeconds", json!(1)),
        ("/unknown", json!(null)),
    ] {
        let answer = service.verify(&with(&payment, pointer, value)).await;
        assert_eq!(answer["isValid"], json!(true), "{pointer}: {answer}");
    }
    // Any case of hex, and any spelling of a number.
    let upper = |text: &str| format!("0x{}", text[2..].to_uppercase());
    let payer = payment.pointer("/paymentPayload/payload/authorization/from").unwrap();
    for (pointer, value) in [
        ("/paymentPayload/payload/authorization/from", json!(upper(payer.as_str().unwrap()))),
        ("/paymentPayload/payload/authorization/value", json!(AMOUNT)),
        ("/paymentPayload/payload/authorization/value", json!(format!("{AMOUNT:#x}"))),
        ("/paymentRequirements/amount", json!(format!("000{AMOUNT}"))),
        ("/paymentRequirements/maxTimeoutSeconds", json!(60.0)),
    ] {
        let answer = service.verify(&with(&payment, pointer, value)).await;
        assert_eq!(answer["isValid"], json!(true), "{pointer}: {answer}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_factories_of_the_settings_are_called() {
    const FACTORIES: &str = "QUITTANCE__CHAINS__LOCAL__WALLET_FACTORIES";
    const NOT_ALLOWED: &str = "eip6492_factory_not_allowed";
    let world = World::automine().await;
    let coinbase = Factories::DEFAULT[1];
    for (listed, n_allowed) in [
        (None, 1),
        (Some(NOWHERE.to_string()), 1),
        (Some(format!("{NOWHERE}, {coinbase}")), 2),
        (Some(String::new()), 0),
    ] {
        let settings = listed.as_deref().map(|listed| (FACTORIES, listed));
        let service = world.service_with(settings.as_slice()).await;
        let mut n_called = 0;
        for factory in [NOWHERE, coinbase] {
            let wrapped = (factory, Bytes::from([1]), Bytes::from([0x11; 65])).abi_encode_params();
            let signature = [wrapped, [0x64, 0x92].repeat(16)].concat();
            let payment = with_signature(&world.payment(0, AMOUNT), &signature);
            let answer = service.verify(&payment).await;
            assert_eq!(answer["isValid"], json!(false), "nobody signed: {answer}");
            n_called += u32::from(reason(&answer) != Some(NOT_ALLOWED));
        }
        assert_eq!(n_called, n_allowed, "{listed:?}");
        service.stop().await;
    }
    world.stop().await;
}
