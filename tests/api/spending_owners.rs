//! Who may sign what, in which order, and who may know of it.

use alloy::primitives::{Address, U256};
use quittance::{
    app::dev::Account,
    policies::{Document, SpendingPolicy},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    callers::{quittance, stderr, stdout},
    support::{
        Answer, Fault, RPC_URL, Service, World, create_account, in_wrapper, now, session, sign,
        signed, units, with_signature,
    },
};

const PATH: &str = "/v1/policies";
const EXCEEDED: Option<&str> = Some("spending_policy_exceeded");
const EXPIRED: Option<&str> = Some("spending_policy_expired");
const STORED: &str = "select count(*) from spending_policy";
const WALLET: Address = Address::repeat_byte(0xa1);

/// A policy that allows payments of `per_payment`, and names an owner.
fn policy(
    world: &World,
    account: Address,
    nonce: u64,
    owner: Address,
    per_payment: u64,
) -> Document {
    let mut policy: SpendingPolicy = world.policy_of(account, nonce);
    policy.owner = owner;
    policy.limits.per_payment = units(per_payment);
    Document::Policy(policy)
}

async fn ask(service: &Service, document: &Document, signer: &Account) -> Answer {
    service.post_openly(PATH, &signed(document, signer)).await
}

fn assert_denied(answer: &Answer, status: u16, error: &str, words: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    assert_eq!(answer.json()["error"], json!(error), "{}", answer.body);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(words), "{words}: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accounts_own_key_cannot_raise_what_its_owner_limited() {
    let world = World::automine().await;
    let service = world.service().await;
    let [account, owner, thief] = [0, 1, 2].map(|n| world.services.chain.payers[n].clone());
    let first = policy(&world, account.address, 1, owner.address, 1_000);
    for stranger in [&owner, &thief] {
        assert_denied(&ask(&service, &first, stranger).await, 403, "forbidden", "who may sign for");
    }
    service.register(&first, &account).await;
    let raised = policy(&world, account.address, 2, account.address, 1_000_000);
    let release = Document::Release(world.ending_of(account.address, 2));
    let revocation = Document::Revocation(world.ending_of(account.address, 2));
    for document in [&raised, &release, &revocation] {
        for signer in [&account, &thief] {
            let answer = ask(&service, document, signer).await;
            assert_denied(&answer, 403, "forbidden", "who may sign for");
        }
    }
    assert_eq!(world.count(STORED).await, 1);
    service.until_verdict(&world.payment(0, 1_001), EXCEEDED).await;
    // The owner can, and can hand it on.
    service.register(&policy(&world, account.address, 2, thief.address, 2_000), &owner).await;
    service.until_verdict(&world.payment(0, 1_001), None).await;
    let answer = ask(&service, &policy(&world, account.address, 3, owner.address, 1), &owner).await;
    assert_denied(&answer, 403, "forbidden", "who may sign for");
    service.register(&policy(&world, account.address, 3, owner.address, 1), &thief).await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_come_in_the_order_of_their_nonces() {
    let world = World::automine().await;
    let replicas = world.replicas(2).await;
    let service = &replicas[0];
    let account = world.services.chain.payers[0].clone();
    let at = |nonce| policy(&world, account.address, nonce, Address::ZERO, nonce);
    service.register(&at(5), &account).await;
    for nonce in [5, 4, 0] {
        assert_denied(&ask(service, &at(nonce), &account).await, 409, "conflict", "above 5");
    }
    service.register(&at(6), &account).await;
    service.register(&Document::Revocation(world.ending_of(account.address, 8)), &account).await;
    assert_denied(&ask(service, &at(7), &account).await, 409, "conflict", "above 8");
    // Of two at the same time, one is taken.
    let same = at(9);
    let (one, other) =
        tokio::join!(ask(&replicas[0], &same, &account), ask(&replicas[1], &same, &account));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "{} {}", one.body, other.body);
    // Another asset has an order of its own.
    let mut elsewhere = world.policy_of(account.address, 1);
    elsewhere.subject.asset = Address::repeat_byte(0x77);
    service.register(&Document::Policy(elsewhere), &account).await;
    assert_eq!(world.count(STORED).await, 5);
    for replica in replicas {
        replica.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_revocation_nothing_is_paid_and_after_a_release_anything() {
    let world = World::automine().await;
    let service = world.service().await;
    let [account, owner] = [0, 1].map(|n| world.services.chain.payers[n].clone());
    let ending = |nonce| world.ending_of(account.address, nonce);
    let (revoke, release) = (Document::Revocation, Document::Release);
    let none = "no policy in force";
    for document in [revoke(ending(1)), release(ending(1))] {
        assert_denied(&ask(&service, &document, &account).await, 409, "conflict", none);
    }
    service.register(&policy(&world, account.address, 1, owner.address, 500), &account).await;
    service.until_verdict(&world.payment(0, 500), None).await;
    service.register(&revoke(ending(2)), &owner).await;
    let payment = world.payment(0, 1);
    let told = service.until_verdict(&payment, EXPIRED).await;
    assert!(told["invalidMessage"].as_str().unwrap().contains("revoked"), "{told}");
    assert_eq!(service.settle(&payment).await["errorReason"].as_str(), EXPIRED);
    let again = ask(&service, &revoke(ending(3)), &owner).await;
    assert_denied(&again, 409, "conflict", "revoked already");
    // The account's own key does not free it.
    let answer = ask(&service, &release(ending(3)), &account).await;
    assert_denied(&answer, 403, "forbidden", "who may sign for");
    service.register(&release(ending(3)), &owner).await;
    service.until_verdict(&payment, None).await;
    assert_eq!(service.settle(&payment).await["success"], json!(true));
    assert_denied(&ask(&service, &release(ending(4)), &account).await, 409, "conflict", none);
    // Free again, the account names whom it likes.
    let next = policy(&world, account.address, 4, Address::ZERO, 7);
    assert_denied(&ask(&service, &next, &owner).await, 403, "forbidden", "who may sign for");
    service.register(&next, &account).await;
    service.until_verdict(&world.payment(0, 8), EXCEEDED).await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smart_wallet_signs_by_its_code_once_it_is_there() {
    let world = World::automine().await;
    let service = world.service().await;
    let [account, owner] = [0, 1].map(|n| world.services.chain.payers[n].clone());
    let document = policy(&world, WALLET, 1, Address::ZERO, 1_000);
    assert_denied(&ask(&service, &document, &account).await, 403, "forbidden", "who may sign for");
    let wrapped = in_wrapper(
        Address::repeat_byte(0xfa),
        &create_account(account.address, 0),
        &sign(&account, document.digest()),
    );
    let answer = service.post_openly(PATH, &with_signature(&document, &wrapped)).await;
    assert_denied(&answer, 403, "forbidden", "deploy it first");
    world.place_wallet(WALLET, 0).await;
    assert_denied(&ask(&service, &document, &owner).await, 403, "forbidden", "who may sign for");
    // Whoever wraps it all the same is understood.
    let answer = service.post_openly(PATH, &with_signature(&document, &wrapped)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    service.until_verdict(&world.payment_of(WALLET, 0, 1_001), EXCEEDED).await;
    // And a wallet can be the owner of a plain account's policy.
    service.register(&policy(&world, account.address, 1, WALLET, 10), &account).await;
    world.place(WALLET, "SmartWallet", world.owner_word(1)).await;
    let raised = policy(&world, account.address, 2, WALLET, 20);
    assert_denied(&ask(&service, &raised, &account).await, 403, "forbidden", "who may sign for");
    service.register(&raised, &owner).await;
    service.until_verdict(&world.payment(0, 20), None).await;
    // A delegated account is asked too, and its key alone is not enough (EIP-7702).
    let delegate = Address::repeat_byte(0xde);
    world.place(delegate, "SmartWallet", U256::ZERO).await;
    let third = &world.services.chain.payers[2];
    world.delegate(third.address, Some(delegate)).await;
    world.set_word(third.address, world.owner_word(1)).await;
    let document = policy(&world, third.address, 1, Address::ZERO, 10);
    assert_denied(&ask(&service, &document, third).await, 403, "forbidden", "who may sign for");
    service.register(&document, &owner).await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_told_to_the_owner_the_account_and_the_operator() {
    let world = World::automine().await;
    let service = world.service().await;
    let [account, owner, stranger] = [0, 1, 2].map(|n| world.services.chain.payers[n].clone());
    let (money, time) = (world.money_of(account.address), now().seconds());
    let read = async |at, signer: &Account| service.read_policy(money, at, signer).await;
    assert_denied(&read(time, &account).await, 404, "not_found", "ever registered");
    assert_denied(&read(time, &stranger).await, 403, "forbidden", "who may sign for");
    let mut limited = world.policy_of(account.address, 1);
    limited.owner = owner.address;
    limited.limits.per_day = units(1_000);
    limited.sessions = vec![session(Address::ZERO)];
    limited.sessions[0].limits.total = units(600);
    service.register(&Document::Policy(limited.clone()), &account).await;
    assert_eq!(service.settle(&world.payment(0, 400)).await["success"], json!(true));
    let told = read(time, &owner).await;
    assert_eq!(told.status, 200, "{}", told.body);
    let report = told.json();
    assert_eq!(report["state"], json!("limited"));
    assert_eq!(report["policy"], Document::Policy(limited).to_json());
    assert_eq!(
        report["budgets"],
        json!({
            "day": { "spent": "400", "left": "600" },
            "total": { "spent": "400", "left": null },
            "sessions": [{
                "day": { "spent": "400", "left": null },
                "total": { "spent": "400", "left": "200" },
            }],
        })
    );
    assert_eq!(read(time, &account).await.json(), report);
    assert_denied(&read(time, &stranger).await, 403, "forbidden", "who may sign for");
    for (at, status) in [(time - 290, 200), (time - 310, 403), (time + 290, 200), (time + 400, 403)]
    {
        assert_eq!(read(at, &owner).await.status.as_u16(), status, "issued at {at}");
    }
    let path = format!("{PATH}/{}/{}/{}", money.chain_id, money.account, money.asset);
    let get = async |key: &str| {
        let header = ("Authorization", format!("Bearer {key}"));
        service.send(Method::GET, &path, &[header], String::new()).await
    };
    assert_eq!(get(world.keys.operator.reveal()).await.json(), report);
    assert_denied(&get(world.keys.merchant.reveal()).await, 403, "forbidden", "operator");
    assert_denied(&get("qk_test_0").await, 401, "unauthorized", "");
    let (chain, account_id, asset) =
        (money.chain_id.to_string(), money.account.to_string(), money.asset.to_string());
    let mut arguments =
        vec!["policy", "show", "--chain", &chain, "--account", &account_id, "--asset", &asset];
    let shown = quittance(&world, &arguments).await;
    assert!(stdout(&shown).contains("policy, today: 400 spent, 600 left"), "{shown:?}");
    arguments.push("--json");
    let shown = quittance(&world, &arguments).await;
    assert_eq!(serde_json::from_str::<Value>(stdout(&shown)).unwrap(), report);
    arguments[5] = &asset;
    let unknown = quittance(&world, &arguments).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("ever registered"), "{unknown:?}");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_registration_is_recorded_without_its_signature() {
    let world = World::automine().await;
    let service = world.service().await;
    let [account, owner] = [0, 1].map(|n| world.services.chain.payers[n].clone());
    let ending = |nonce| world.ending_of(account.address, nonce);
    let documents = [
        (policy(&world, account.address, 1, owner.address, 5), &account),
        (Document::Revocation(ending(2)), &owner),
        (Document::Release(ending(3)), &owner),
    ];
    for (document, signer) in &documents {
        service.register(document, signer).await;
    }
    // Released, the account signs again.
    let refused = policy(&world, account.address, 1, owner.address, 5);
    assert_denied(&ask(&service, &refused, &account).await, 409, "conflict", "nonce");
    let rows: Vec<(String, String, String, String, Option<String>, String)> = sqlx::query_as(
        "select actor_kind, actor, origin, action, before, after from audit
         where action like 'policy.%' order by audit_id",
    )
    .fetch_all(&world.books)
    .await
    .unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    let mut before: Option<Value> = None;
    let actions = ["policy.register", "policy.revoke", "policy.release"];
    for ((row, action), (document, signer)) in rows.iter().zip(actions).zip(&documents) {
        let after: Value = serde_json::from_str(&row.5).unwrap();
        assert_eq!((&*row.0, &*row.2, &*row.3), ("payer", "127.0.0.1", action));
        assert_eq!(row.1, signer.address.to_string());
        assert_eq!(after["document"], document.to_json());
        assert_eq!(row.4.as_deref().map(|text| serde_json::from_str(text).unwrap()), before);
        let signature = alloy::hex::encode(sign(signer, document.digest()));
        assert!(!format!("{row:?}{}", service.log()).contains(&signature));
        before = Some(after);
    }
    // They are evidence, and stay.
    for sql in ["delete from spending_policy", "update spending_policy set nonce = 9"] {
        assert!(sqlx::query(sql).execute(&world.books).await.is_err(), "{sql}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_named_and_trouble_is_no_verdict() {
    let world = World::automine().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    let account = world.services.chain.payers[0].clone();
    let good = signed(&policy(&world, account.address, 1, Address::ZERO, 5), &account);
    let edited = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        body
    };
    let with_sessions = |n| {
        let mut policy = world.policy_of(account.address, 1);
        policy.sessions = vec![session(Address::ZERO); n];
        signed(&Document::Policy(policy), &account)
    };
    let with_payees = |n: usize| {
        let mut policy = world.policy_of(account.address, 1);
        policy.limits.payees = vec![WALLET; n / 2];
        policy.sessions = vec![session(Address::ZERO)];
        policy.sessions[0].limits.payees = vec![WALLET; n - n / 2];
        signed(&Document::Policy(policy), &account)
    };
    let mut two_kinds = good.clone();
    two_kinds["release"] = json!({ "account": account.address, "asset": WALLET, "nonce": "1" });
    for (body, words) in [
        (json!([]), "a JSON object"),
        (json!({}), "network"),
        (edited("/network", json!("base")), "network"),
        (edited("/network", json!("eip155:1")), "eip155:1 is not served"),
        (edited("/signature", json!("0x0")), "signature"),
        (edited("/policy", Value::Null), "exactly one of"),
        (two_kinds, "exactly one of"),
        (edited("/policy", json!("mine")), "policy: expected an object"),
        (edited("/policy/account", json!("0x12")), "policy.account"),
        (edited("/policy/account", json!(Address::ZERO)), "policy.account"),
        (edited("/policy/nonce", json!("-1")), "policy.nonce"),
        (edited("/policy/perDay", Value::Null), "policy.perDay"),
        (edited("/policy/payees", json!(["0x12"])), "policy.payees[0]"),
        (edited("/policy/validBefore", json!("0")), "policy.validBefore"),
        (edited("/policy/sessions", json!([{}])), "policy.sessions[0].key"),
        (edited("/policy/sessions", json!([1])), "policy.sessions[0]"),
        (with_sessions(17), "policy.sessions: there are 17; 16 are the most"),
        (with_payees(101), "policy.payees: 101 payees"),
    ] {
        let answer = service.post_openly(PATH, &body).await;
        assert_denied(&answer, 400, "invalid_request", words);
    }
    let answer = service.send(Method::POST, PATH, &[], "{".to_owned()).await;
    assert_denied(&answer, 400, "invalid_request", "EOF");
    // Another word than the one that was signed.
    let altered = edited("/policy/perPayment", json!("6"));
    assert_denied(&service.post_openly(PATH, &altered).await, 403, "forbidden", "who may sign for");

    proxy.set("eth_getCode", Fault::DropBefore);
    proxy.set("eth_call", Fault::DropBefore);
    let answer = service.post_openly(PATH, &good).await;
    assert_denied(&answer, 503, "service_unavailable", "could not be read");
    assert_eq!(world.count(STORED).await, 0);
    proxy.heal();
    let answer = service.post_openly(PATH, &with_sessions(16)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let mut most = with_payees(100);
    most["policy"]["nonce"] = json!("1");
    assert_denied(&service.post_openly(PATH, &most).await, 409, "conflict", "above 1");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_holds_although_verification_has_not_heard_of_it() {
    let world = World::automine().await;
    let replicas = world.replicas(2).await;
    let account = world.services.chain.payers[0].clone();
    // The second replica has just looked who has policies, and does not look again for a while.
    let payment = world.payment(0, 100);
    assert_eq!(replicas[1].verify(&payment).await["isValid"], json!(true));
    let revoked = policy(&world, account.address, 1, Address::ZERO, 99);
    replicas[0].register(&revoked, &account).await;
    let answer = replicas[1].settle(&payment).await;
    assert_eq!(answer["errorReason"].as_str(), EXCEEDED, "{answer}");
    for replica in replicas {
        replica.stop().await;
    }
    world.stop().await;
}
