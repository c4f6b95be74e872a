//! Lists of who is allowed and denied: what they forbid, when, and what is recorded of it.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use futures_util::future::join_all;
use quittance::verify::Factories;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::{
    callers::{assert_shape, key, merchant_key, quittance, reason, stderr, stdout},
    payments::{AMOUNT, NOWHERE},
    support::{Answer, Service, World},
};

const DENIED: &str = "address_denied";
const FACTORY: Address = Factories::DEFAULT[0];
const KINDS: [&str; 4] = ["payer", "payee", "asset", "factory"];
/// The merchant whose key services have in tests.
const MERCHANT: &str = "dev merchant";
/// How long a verification may go on by what a list said before.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer than a process believes its copy of the lists.
const STALE: Duration = Duration::from_millis(1_100);

/// A world with a wallet that a factory is still to deploy, and payments out of it: they name somebody of
/// each kind.
struct Scene {
    world: World,
    service: Service,
    parties: [Address; 4],
    salt: u64,
}

impl Scene {
    async fn set() -> Self {
        let world = World::automine().await;
        world.place(FACTORY, "SmartWalletFactory", U256::ZERO).await;
        let service = world.service().await;
        let chain = &world.services.chain;
        let parties = [Address::ZERO, chain.payee.address, chain.usdc, FACTORY];
        Self { world, service, parties, salt: 0 }
    }

    /// A fresh payment, out of a wallet of its own.
    async fn payment(&mut self) -> Value {
        self.salt += 1;
        let payer = self.world.address_by(FACTORY, 0, self.salt).await;
        self.parties[0] = payer;
        self.world.give(payer, 10 * AMOUNT).await;
        self.world.counterfactual(FACTORY, 0, self.salt, AMOUNT).await
    }

    async fn list(&self, arguments: &[&str]) -> Value {
        let output = quittance(&self.world, &[&["list"], arguments, &["--json"]].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_str(stdout(&output)).unwrap()
    }

    async fn change_all(&self, what: &str, entries: &[Entry<'_>]) {
        join_all(entries.iter().map(|entry| self.change(what, entry))).await;
    }

    async fn change(&self, what: &str, entry: &Entry<'_>) {
        let (address, mut arguments) = (entry.address.to_string(), vec![what]);
        arguments.extend(["--kind", entry.kind, "--verb", entry.verb, &address]);
        arguments.extend(entry.merchant.iter().flat_map(|name| ["--merchant", name]));
        arguments.extend(entry.chain.iter().flat_map(|chain| ["--chain", chain]));
        let told = self.list(&arguments).await;
        assert_eq!(told[if what == "add" { "added" } else { "removed" }], 1, "{told}");
    }

    /// Settling obeys the lists at once, verifying within a second.
    async fn assert_denied(&self, payment: &Value, by: &str, kind: &str) {
        let told = format!("the {by} does not allow this {kind}");
        let settled = self.service.settle(payment).await;
        assert_shape("/settle", &settled);
        assert_eq!(reason(&settled), Some(DENIED), "{by} {kind}: {settled}");
        assert_eq!(settled["errorMessage"], told);
        let verified = self.until_verified(payment, Some(DENIED)).await;
        assert_shape("/verify", &verified);
        assert_eq!(verified["invalidMessage"], told);
    }

    async fn until_verified(&self, payment: &Value, expected: Option<&str>) -> Value {
        until_verified(&self.service, payment, expected).await
    }
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    kind: &'a str,
    verb: &'a str,
    address: Address,
    merchant: Option<&'a str>,
    chain: Option<&'a str>,
}

/// The verdict, once it is the expected one.
async fn until_verified(service: &Service, payment: &Value, expected: Option<&str>) -> Value {
    let started = Instant::now();
    loop {
        let answer = service.verify(payment).await;
        if reason(&answer) == expected {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "not {expected:?} but {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_lists_forbid_what_they_say_to_every_merchant() {
    forbid_what_they_say(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchants_lists_forbid_what_they_say_to_that_merchant() {
    forbid_what_they_say(Some(MERCHANT)).await;
}

/// Each kind and verb, at verify and at claim, and nothing else.
async fn forbid_what_they_say(merchant: Option<&str>) {
    let mut scene = Scene::set().await;
    let chain_id = scene.world.services.chain.chain_id.to_string();
    let other_key = [("X-API-Key", merchant_key(&scene.world, "other").await)];
    let by = if merchant.is_some() { "merchant" } else { "operator" };
    for (n, kind) in KINDS.into_iter().enumerate() {
        let payment = scene.payment().await;
        let (address, chain) = (scene.parties[n], Some(chain_id.as_str()));
        let entry = Entry { kind, verb: "deny", address, merchant, chain };
        // On another chain, or in another part, nobody is meant.
        let another_part = KINDS[(n + 1) % 4];
        let harmless = [
            Entry { chain: Some("eip155:1"), ..entry },
            Entry { kind: another_part, chain: None, ..entry },
            Entry { verb: "allow", chain: Some("eip155:1"), address: NOWHERE, ..entry },
        ];
        scene.change_all("add", &harmless).await;
        tokio::time::sleep(STALE).await;
        scene.until_verified(&payment, None).await;
        // Denied by name.
        scene.change("add", &entry).await;
        scene.assert_denied(&payment, by, kind).await;
        let body = payment.to_string();
        let of_other = scene.service.send(Method::POST, "/verify", &other_key, body).await;
        assert_eq!(of_other.json()["isValid"], json!(merchant.is_some()), "{kind}");
        scene.change("remove", &entry).await;
        scene.change_all("remove", &harmless).await;
        // Denied because others are allowed, until it is allowed too.
        let others = Entry { verb: "allow", address: NOWHERE, chain: None, ..entry };
        let itself = Entry { verb: "allow", ..entry };
        scene.change("add", &others).await;
        scene.assert_denied(&payment, by, kind).await;
        scene.change("add", &itself).await;
        scene.until_verified(&payment, None).await;
        // Who is denied and allowed is denied.
        let anywhere = Entry { chain: None, ..entry };
        scene.change("add", &anywhere).await;
        scene.assert_denied(&payment, by, kind).await;
        scene.change("remove", &anywhere).await;
        let answer = scene.service.settle(&payment).await;
        assert_eq!(answer["success"], json!(true), "{by} {kind}: {answer}");
        scene.change_all("remove", &[itself, others]).await;
    }
    assert_eq!(scene.world.count("select count(*) from settlement").await, 4);
    assert_eq!(scene.world.count("select count(*) from list_entry").await, 0);
    scene.world.check_books().await;
    scene.service.stop().await;
    scene.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_comes_between_verifying_and_settling_is_obeyed() {
    let world = World::stepped().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT);
    assert_eq!(service.verify(&payment).await["isValid"], json!(true));
    let payer = world.services.chain.payers[0].address.to_string();
    let add = ["list", "add", "--kind", "payer", "--verb", "deny", &payer];
    assert!(quittance(&world, &add).await.status.success());
    let answer = service.settle(&payment).await;
    assert_eq!(reason(&answer), Some(DENIED), "{answer}");
    // The verdict was reused: nothing but the claim itself can have noticed.
    let metrics = service.operations("/metrics").await.body;
    assert!(metrics.contains("quittance_verdicts_reused_total 1"), "{metrics}");
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    // What was refused promised nothing, and is paid once nothing forbids it.
    let remove = ["list", "remove", "--kind", "payer", "--verb", "deny", &payer];
    assert!(quittance(&world, &remove).await.status.success());
    let settled = service.settle(&payment);
    let (answer, ()) = tokio::join!(settled, async {
        world.node.until_pending(1).await;
        world.node.mine(1).await;
    });
    assert_eq!(answer["success"], json!(true), "{answer}");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_denial_is_recorded_with_its_list_and_version_and_every_change_audited() {
    let world = World::automine().await;
    let service = world.service().await;
    let payer = world.services.chain.payers[0].address;
    let add = |more: &'static [&'static str]| {
        let address = payer.to_string();
        let world = &world;
        async move {
            let fixed = ["list", "add", "--kind", "payer", "--verb", "deny", &address];
            let added = quittance(world, &[&fixed[..], more].concat()).await;
            assert!(added.status.success(), "{}", stderr(&added));
        }
    };
    add(&["--merchant", MERCHANT, "--note", "a thief"]).await;
    let payment = world.payment(0, AMOUNT);
    until_verified(&service, &payment, Some(DENIED)).await;
    for _ in 0..2 {
        assert_eq!(reason(&service.verify(&payment).await), Some(DENIED));
    }
    service.settle(&payment).await;
    add(&[]).await;
    service.settle(&payment).await;
    world.until("select count(*) from list_refusal", 3).await;
    world.until("select n from list_refusal where stage = 'verify'", 3).await;
    let rows = sqlx::query(
        "select stage, list, version, n, kind, address, payer, nonce, amount::text, merchant_id
         from list_refusal order by list, stage desc",
    );
    let rows = rows.fetch_all(&world.books).await.unwrap();
    let told: Vec<(String, String, String, i64)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let row = |stage: &str, list: &str, version: &str, n| {
        (stage.to_owned(), list.to_owned(), version.to_owned(), n)
    };
    assert_eq!(
        told,
        [
            row("verify", "merchant/payer/deny", "1", 3),
            row("claim", "merchant/payer/deny", "1", 1),
            row("claim", "service/payer/deny", "1", 1),
        ]
    );
    for row in &rows {
        assert_eq!(row.get::<String, _>("kind"), "payer");
        assert_eq!(row.get::<Vec<u8>, _>("address"), payer.to_vec());
        assert_eq!(row.get::<Vec<u8>, _>("payer"), payer.to_vec());
        assert_eq!(row.get::<String, _>("amount"), AMOUNT.to_string());
    }
    let refusals = quittance(&world, &["list", "refusals", "--json"]).await;
    let refusals: Vec<Value> =
        stdout(&refusals).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(refusals.len(), 3);
    assert_eq!(refusals[0]["list"], "service/payer/deny", "the newest first");
    let nonce = &payment["paymentPayload"]["payload"]["authorization"]["nonce"];
    assert!(refusals.iter().all(|refusal| refusal["nonce"] == *nonce), "{refusals:#?}");

    let audited = sqlx::query(
        "select action, coalesce(merchant_id::text, 'service') = subject, merchant_id is null, before, after, actor_kind from audit
         where action like 'list.%' order by audit_id",
    );
    let audited = audited.fetch_all(&world.books).await.unwrap();
    let told: Vec<(String, bool, bool)> =
        audited.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let added = |is_service| ("list.add".to_owned(), true, is_service);
    assert_eq!(told, [added(false), added(true)], "the subject is whose list it is");
    let after: Value = serde_json::from_str(&audited[0].get::<String, _>("after")).unwrap();
    assert_eq!(after["version"], 1);
    assert_eq!(after["entries"][0]["note"], "a thief");
    assert_eq!(after["entries"][0]["address"], json!(payer.to_string()));
    assert_eq!(audited[0].get::<Option<String>, _>("before"), None);
    assert_eq!(audited[0].get::<String, _>("actor_kind"), "command");
    service.stop().await;
    world.stop().await;
}

/// The processor time that a process has used.
fn processor_time(service: &Service) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    // `utime` and `stime` of proc(5), in ticks of a hundredth of a second.
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_a_hundred_thousand_does_not_cost_each_verification() {
    const N: u64 = 300;
    let world = World::automine().await;
    let service = world.service().await;
    let payments: Vec<Value> = (0..8).map(|n| world.payment(n, AMOUNT)).collect();
    let measure = async || {
        let (before, started) = (processor_time(&service), Instant::now());
        for payment in payments.iter().cycle().take(usize::try_from(N).unwrap()) {
            assert_eq!(service.verify(payment).await["isValid"], json!(true));
        }
        (processor_time(&service) - before, started.elapsed())
    };
    measure().await;
    let without = measure().await;
    sqlx::raw_sql(
        "insert into list_entry (kind, verb, address, note)
            select 'payer', 'deny', decode(lpad(to_hex(n), 40, '0'), 'hex'), ''
            from generate_series(1, 100000) as n;
         insert into list_version values (null, 1, 100000);",
    )
    .execute(&world.books)
    .await
    .unwrap();
    let denied = world.services.chain.payers[7].address.to_string();
    let add = ["list", "add", "--kind", "payer", "--verb", "deny", &denied];
    assert!(quittance(&world, &add).await.status.success());
    until_verified(&service, &payments[7], Some(DENIED)).await;
    let remove = ["list", "remove", "--kind", "payer", "--verb", "deny", &denied];
    assert!(quittance(&world, &remove).await.status.success());
    until_verified(&service, &payments[7], None).await;
    let with = measure().await;
    eprintln!("{N} verifications: {without:?} without a list, {with:?} with one of 100,000");
    // Looking through the list would take a millisecond each time, and reading it a hundred.
    let most = without.0 + Duration::from_micros(300) * u32::try_from(N).unwrap();
    assert!(with.0 < most, "{with:?} of processor time, {without:?} without a list");
    let settled = service.settle(&payments[0]).await;
    assert_eq!(settled["success"], json!(true), "{settled}");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_entries_are_refused_and_lists_are_shown() {
    let world = World::automine().await;
    let address = NOWHERE.to_string();
    let fixed = ["list", "add", "--kind", "payee", "--verb", "allow"];
    let long = "x".repeat(201);
    for (arguments, told) in [
        (&["0x12"][..], "0x12"),
        (&[&address[2..]], "not an address"),
        (&[&address, "--merchant", "nobody"], "nobody"),
        (&[&address, "--note", &long], "200 characters"),
        (&[&address, "--note", "a\nb"], "control"),
    ] {
        let output = quittance(&world, &[&fixed[..], arguments].concat()).await;
        assert!(!output.status.success(), "{arguments:?}");
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
    }
    let add = [&fixed[..], &[&address, "--note", &long[1..], "--chain", "eip155:8453"]].concat();
    for n_added in [1, 0] {
        let output = quittance(&world, &[&add[..], &["--json"]].concat()).await;
        let told: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(told, json!({ "added": n_added, "version": 1 }));
    }
    let shown = quittance(&world, &["list", "show", "--json"]).await;
    let shown: Value = serde_json::from_str(stdout(&shown)).unwrap();
    assert_eq!(shown["merchantId"], Value::Null);
    assert_eq!((&shown["kind"], &shown["verb"]), (&json!("payee"), &json!("allow")));
    assert_eq!((&shown["network"], &shown["address"]), (&json!("eip155:8453"), &json!(address)));
    assert_eq!(shown["note"], long[1..]);
    for others in [&["--kind", "payer"][..], &["--verb", "deny"], &["--merchant", MERCHANT]] {
        let shown = quittance(&world, &[&["list", "show"], others].concat()).await;
        assert!(shown.status.success(), "{}", stderr(&shown));
        assert_eq!(stdout(&shown), "", "{others:?}");
    }
    world.stop().await;
}

/// What the API answers to a key.
async fn ask(service: &Service, key: &str, method: Method, path: &str, body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    service.send(method, path, &[("X-API-Key", key.to_owned())], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_and_merchants_keep_their_lists_by_the_api() {
    let world = World::automine().await;
    let service = world.service().await;
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let operator = world.keys.operator.reveal();
    let own = key(&world, &["--merchant", MERCHANT, "--test", "--scopes", "read,manage"]).await;
    let merchants = ask(&service, operator, get.clone(), "/v1/merchants", Value::Null).await;
    let merchant_id = merchants.json()["merchants"][0]["merchantId"].clone();
    let entries = "/v1/lists/entries";
    let payer = world.services.chain.payers[0].address.to_string();
    let denied = json!({ "kind": "payer", "verb": "deny", "address": payer });

    let added = json!({ "entries": [denied, denied] });
    let answer = ask(&service, &own, post.clone(), entries, added.clone()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["added"]), (200, &json!(1)));
    let settled = service.settle(&world.payment(0, AMOUNT)).await;
    assert_eq!(settled["errorMessage"], "the merchant does not allow this payer");
    let answer = ask(&service, operator, post.clone(), entries, added).await;
    assert_eq!(answer.json(), json!({ "added": 1, "version": 1 }));
    let settled = service.settle(&world.payment(0, AMOUNT)).await;
    assert_eq!(settled["errorMessage"], "the operator does not allow this payer");

    // Each sees its own; an operator all.
    let of_merchant = format!("{entries}?merchantId={}", merchant_id.as_str().unwrap());
    let mut entry_ids = Vec::new();
    for (key, path, owner) in [
        (own.as_str(), entries, &merchant_id),
        (&own, &of_merchant, &merchant_id),
        (operator, &of_merchant, &merchant_id),
        (operator, entries, &Value::Null),
    ] {
        let listed = ask(&service, key, get.clone(), path, Value::Null).await.json();
        let [entry] = listed["entries"].as_array().unwrap().as_slice() else { panic!("{listed}") };
        assert_eq!((&entry["merchantId"], &entry["address"]), (owner, &json!(payer)));
        entry_ids.push(entry["entryId"].as_i64().unwrap());
    }
    let of_service = format!("{entries}/{}", entry_ids[3]);
    let answer = ask(&service, &own, delete.clone(), &of_service, Value::Null).await;
    assert_eq!(answer.status, 404, "it is not the merchant's: {}", answer.body);
    let elsewhere = format!("{entries}?merchantId={}", uuid::Uuid::nil());
    assert_eq!(ask(&service, &own, get.clone(), &elsewhere, Value::Null).await.status, 404);
    let refusals = ask(&service, operator, get.clone(), "/v1/refusals", Value::Null).await.json();
    assert_eq!(refusals["refusals"].as_array().map(Vec::len), Some(2), "{refusals}");
    assert_eq!(refusals["refusals"][0]["list"], "service/payer/deny");
    assert_eq!(ask(&service, &own, get.clone(), "/v1/refusals", Value::Null).await.status, 403);

    // A key without the scope may not.
    let answer = ask(&service, &service.api_key, post.clone(), entries, json!({})).await;
    assert_eq!(answer.status, 403, "{}", answer.body);

    for path in [of_service, format!("{entries}/{}", entry_ids[0])] {
        let answer = ask(&service, operator, delete.clone(), &path, Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let again = ask(&service, operator, delete.clone(), &path, Value::Null).await;
        assert_eq!(again.status, 404);
    }
    assert_eq!(service.settle(&world.payment(0, AMOUNT)).await["success"], json!(true));
    let audited = "select count(*) from audit where action in ('list.add', 'list.remove')
        and actor_kind in ('operator', 'merchant')";
    assert_eq!(world.count(audited).await, 4);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_refuses_what_it_cannot_read_and_pages_what_is_long() {
    let world = World::automine().await;
    let service = world.service().await;
    let operator = world.keys.operator.reveal();
    let line =
        |n: usize| json!({ "kind": "payee", "verb": "deny", "address": format!("0x{n:040x}") });
    let lines = |n: usize| json!({ "entries": (0..n).map(line).collect::<Vec<_>>() });
    let post =
        async |body: Value| ask(&service, operator, Method::POST, "/v1/lists/entries", body).await;
    let altered = |member: &str, value: Value| {
        let mut line = line(1);
        line[member] = value;
        json!({ "entries": [line] })
    };
    for (body, told) in [
        (lines(0), "expected 1 to 1000"),
        (lines(1_001), "expected 1 to 1000"),
        (altered("kind", json!("buyer")), "entries[0].kind"),
        (altered("verb", json!("forbid")), "entries[0].verb"),
        (altered("network", json!("base")), "entries[0].network"),
        (altered("network", json!("solana:x")), "entries[0].network"),
        (altered("address", json!("0x12")), "entries[0].address"),
        (altered("note", json!("x".repeat(201))), "entries[0].note"),
        (altered("colour", json!("red")), "colour"),
    ] {
        let answer = post(body).await;
        assert_eq!(answer.status, 400, "{told}: {}", answer.body);
        assert!(answer.body.contains(told), "{told}: {}", answer.body);
    }
    let mut for_nobody = lines(1);
    for_nobody["merchantId"] = json!(uuid::Uuid::nil());
    assert_eq!(post(for_nobody).await.status, 404);
    assert_eq!(world.count("select count(*) from list_entry").await, 0);
    assert_eq!(post(lines(1_000)).await.json(), json!({ "added": 1_000, "version": 1 }));
    assert_eq!(post(lines(1_000)).await.json(), json!({ "added": 0, "version": 1 }));
    let (mut seen, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let path = format!("/v1/lists/entries?limit=100&after={after}");
        let page = ask(&service, operator, Method::GET, &path, Value::Null).await.json();
        seen.extend(page["entries"].as_array().unwrap().iter().map(|e| e["address"].clone()));
        after = page["next"].clone();
    }
    assert_eq!(seen.len(), 1_000);
    // The last that there is room for, and one more.
    let filled = "update list_version set n_entries = 249999";
    sqlx::query(filled).execute(&world.books).await.unwrap();
    let new = |n: usize| json!({ "entries": [line(2_000 + n)] });
    assert_eq!(post(new(0)).await.status, 200);
    let full = post(new(1)).await;
    assert_eq!(full.status, 409, "{}", full.body);
    assert_eq!(world.count("select count(*) from list_entry").await, 1_001);
    service.stop().await;
    world.stop().await;
}
