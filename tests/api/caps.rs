//! Caps: the last payment that fits is taken, and the first that does not is refused, by `/verify` too.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    callers::{merchant_key, quittance, reason, stderr},
    support::{Answer, Service, World},
};

const CAPPED: &str = "cap_exceeded";
/// How long verification may believe what it read: a second, and what the machine takes.
const BELIEF: Duration = Duration::from_secs(5);
const N_COUNTERS: &str = "select count(*) from budget_counter";

/// A merchant of its own, and its only key.
struct Shop {
    name: String,
    key: String,
    key_id: String,
}

impl Shop {
    async fn open(world: &World, name: &str) -> Self {
        let key = merchant_key(world, name).await;
        let sql = "select api_key_id::text from api_key join merchant using (merchant_id) where merchant.name = $1";
        let key_id = sqlx::query_scalar(sql).bind(name).fetch_one(&world.books).await.unwrap();
        Self { name: name.to_owned(), key, key_id }
    }

    async fn ask(&self, service: &Service, path: &str, payment: &Value) -> Answer {
        let headers = [("X-API-Key", self.key.clone())];
        service.send(Method::POST, path, &headers, payment.to_string()).await
    }

    /// Pays, which succeeds.
    async fn is_paid(&self, service: &Service, payment: &Value, what: &str) {
        let answer = self.ask(service, "/settle", payment).await;
        assert_eq!(answer.json()["success"], json!(true), "{what}: {}", answer.body);
    }

    /// Neither route takes it, for that reason, and both say why alike.
    async fn is_refused(
        &self,
        service: &Service,
        payment: &Value,
        why: &str,
        what: &str,
    ) -> String {
        let settled = self.ask(service, "/settle", payment).await;
        assert_eq!(settled.status, 200, "{what}: {}", settled.body);
        assert_eq!(reason(&settled.json()), Some(why), "{what}: {}", settled.body);
        let asked = Instant::now();
        let verified = loop {
            let verified = self.ask(service, "/verify", payment).await;
            let is_alike = verified.json()["invalidMessage"] == settled.json()["errorMessage"];
            if is_alike || asked.elapsed() > BELIEF {
                break verified.json();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(reason(&verified), Some(why), "{what}: {verified}");
        assert_eq!(verified["invalidMessage"], settled.json()["errorMessage"], "{what}");
        settled.json()["errorMessage"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_that_fits_is_taken_whoever_is_capped_and_whatever_is_counted() {
    let world = World::automine().await;
    let service = world.service().await;
    world.far_from_a_full_hour().await;
    let usdc = world.usdc();
    let amount = ["--amount", "25000", "--asset", &usdc];
    let count = ["--count", "3"];
    let mut n = 0;
    for whom in ["merchant", "key", "payer", "payer-at-merchant"] {
        for (measure, per) in [
            (&amount[..], "payment"),
            (&amount, "hour"),
            (&amount, "day"),
            (&count, "hour"),
            (&count, "day"),
        ] {
            for is_named in [true, false] {
                n += 1;
                let what = format!("{whom} {measure:?} {per} {is_named}");
                let shop = Shop::open(&world, &format!("shop {n}")).await;
                let (payer, n_buyer) = (world.buyer(n % 8).address().to_string(), n % 8);
                let names: &[&str] = match (whom, is_named) {
                    (_, false) => &[],
                    ("merchant", _) => &["--merchant", &shop.name],
                    ("key", _) => &["--key", &shop.key_id],
                    ("payer", _) => &["--payer", &payer],
                    _ => &["--payer", &payer, "--merchant", &shop.name],
                };
                let cap = [&["--for", whom], names, measure, &["--per", per]].concat();
                let cap_id = world.cap(&cap).await;
                let (fits, does_not): (&[u64], &[u64]) = match (measure[0], per) {
                    ("--amount", "payment") => (&[25_000, 1, 25_000], &[25_001]),
                    ("--amount", _) => (&[10_000, 14_999, 1], &[1, 25_001]),
                    _ => (&[1, 90_000, 1], &[1]),
                };
                for amount in fits {
                    shop.is_paid(&service, &world.payment(n_buyer, *amount), &what).await;
                }
                for amount in does_not {
                    let said = shop
                        .is_refused(&service, &world.payment(n_buyer, *amount), CAPPED, &what)
                        .await;
                    let limit =
                        if measure[0] == "--amount" { "25000 base units" } else { "3 payments" };
                    assert!(said.contains("operator's cap") && said.contains(limit), "{said}");
                    assert_eq!(said.contains("begins anew"), per != "payment", "{said}");
                }
                world.operator(&["cap", "remove", &cap_id]).await;
                shop.is_paid(&service, &world.payment(n_buyer, 25_001), &what).await;
                // What the next case counts begins with nothing.
                world.pass("24 hours").await;
            }
        }
    }
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_begin_anew_and_days_do_not_with_hours() {
    let world = World::automine().await;
    let service = world.service().await;
    world.far_from_a_full_hour().await;
    let shop = Shop::open(&world, "shop").await;
    world.cap(&["--for", "merchant", "--count", "2", "--per", "hour"]).await;
    world.cap(&["--for", "merchant", "--count", "3", "--per", "day"]).await;
    for (amounts, passes) in [(2, "1 hour"), (1, "24 hours"), (2, "")] {
        for _ in 0..amounts {
            shop.is_paid(&service, &world.payment(0, 10), passes).await;
        }
        let said = shop.is_refused(&service, &world.payment(0, 10), CAPPED, passes).await;
        let (limit, period) = if amounts == 2 { (2, "hour") } else { (3, "day") };
        assert!(said.contains(&format!("{limit} payments a")) && said.contains(period), "{said}");
        world.check_caps().await;
        if !passes.is_empty() {
            // An hour that passes may begin a day as well; its counter stays with this one.
            step(&world, passes).await;
        }
    }
    service.stop().await;
    world.stop().await;
}

/// As if the hour, or the day, had just begun: counters of that window belong to the former one.
async fn step(world: &World, interval: &str) {
    let hours = "update budget_counter set window_start = window_start - interval '1 hour'
        from cap where rule_id = cap_id and period = 'hour'";
    match interval {
        "1 hour" => {
            sqlx::query(hours).execute(&world.books).await.unwrap();
            // What the hourly counter holds was claimed in its hour, and still today.
            let claimed =
                "update settlement set created_at = greatest(date_trunc('day', now(), 'UTC'),
                created_at - interval '1 hour')";
            sqlx::query(claimed).execute(&world.books).await.unwrap();
        }
        day => world.pass(day).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_before_a_cap_was_made_is_counted() {
    let world = World::automine().await;
    let service = world.service().await;
    world.far_from_a_full_hour().await;
    let (shop, other) = (Shop::open(&world, "shop").await, Shop::open(&world, "other").await);
    for payer in 0..3 {
        shop.is_paid(&service, &world.payment(payer, 1_000), "before").await;
        other.is_paid(&service, &world.payment(payer, 500), "before").await;
    }
    // In the window before: counted by none.
    step(&world, "24 hours").await;
    for payer in 0..3 {
        shop.is_paid(&service, &world.payment(payer, 100), "before").await;
        other.is_paid(&service, &world.payment(payer, 50), "before").await;
    }
    let usdc = world.usdc();
    let amount = |most: &'static str| ["--amount", most, "--asset", &usdc, "--per", "day"];
    world.cap(&[&["--for", "payer-at-merchant"], &amount("110")[..]].concat()).await;
    world.cap(&[&["--for", "payer"], &amount("165")[..]].concat()).await;
    world.cap(&[&["--for", "merchant", "--merchant", "shop"], &amount("325")[..]].concat()).await;
    world.cap(&["--for", "key", "--key", &other.key_id, "--count", "4", "--per", "hour"]).await;
    let refused = |shop: &'static str, used: &'static str| (shop, used);
    for (at, payer, amount, expected) in [
        (&shop, 0, 11, Some(refused("each payer at a merchant", "100 used"))),
        (&shop, 0, 10, None),
        (&other, 0, 6, Some(refused("each payer,", "160 used"))),
        (&other, 0, 5, None),
        (&other, 1, 5, Some(refused("this key", "4 used"))),
        (&shop, 1, 10, None),
        (&shop, 2, 6, Some(refused("this merchant", "320 used"))),
        (&shop, 2, 5, None),
        (&shop, 2, 1, Some(refused("this merchant", "325 used"))),
    ] {
        let (payment, what) = (world.payment(payer, amount), format!("{payer} {amount}"));
        match expected {
            None => at.is_paid(&service, &payment, &what).await,
            Some((whose, used)) => {
                let said = at.is_refused(&service, &payment, CAPPED, &what).await;
                assert!(said.contains(whose) && said.contains(used), "{what}: {said}");
            }
        }
        world.check_caps().await;
    }
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_named_has_a_cap_of_its_own_and_is_counted_in_both() {
    let world = World::automine().await;
    let service = world.service().await;
    world.far_from_a_full_hour().await;
    let shop = Shop::open(&world, "shop").await;
    let (named, other) = (world.buyer(0).address().to_string(), 1);
    world.cap(&["--for", "payer", "--count", "2", "--per", "day"]).await;
    let own = ["--for", "payer", "--payer", &named, "--count", "4", "--per", "day"];
    let own = world.cap(&own).await;
    for _ in 0..4 {
        shop.is_paid(&service, &world.payment(0, 10), "its own cap").await;
    }
    let said = shop.is_refused(&service, &world.payment(0, 10), CAPPED, "its own cap").await;
    assert!(said.contains("this payer, 4 payments a day: 4 used, 1 asked"), "{said}");
    for _ in 0..2 {
        shop.is_paid(&service, &world.payment(other, 10), "each").await;
    }
    shop.is_refused(&service, &world.payment(other, 10), CAPPED, "each").await;
    // A higher limit keeps what was counted, and so does a lower one.
    for (limit, fits) in [("5", 1), ("1", 0)] {
        let again = ["--for", "payer", "--payer", &named, "--count", limit, "--per", "day"];
        assert_eq!(world.cap(&again).await, own, "a changed limit keeps the id");
        for _ in 0..fits {
            shop.is_paid(&service, &world.payment(0, 10), "another limit").await;
        }
        shop.is_refused(&service, &world.payment(0, 10), CAPPED, "another limit").await;
    }
    // What it paid under its own cap counts in the one for each, which holds for it again.
    world.operator(&["cap", "remove", &own]).await;
    let said = shop.is_refused(&service, &world.payment(0, 10), CAPPED, "each again").await;
    assert!(said.contains("each payer, 2 payments a day: 5 used, 1 asked"), "{said}");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_come_at_once_share_what_is_left_exactly() {
    let world = World::automine().await;
    let replicas = world.replicas(2).await;
    world.far_from_a_full_hour().await;
    world.cap(&["--for", "merchant", "--count", "10", "--per", "day"]).await;
    let usdc = world.usdc();
    // Another cap that as many claims share, so that counters are taken in one order.
    world.cap(&["--for", "key", "--amount", "1000", "--asset", &usdc, "--per", "hour"]).await;
    let payments: Vec<Value> = (0..40).map(|n| world.payment(n % 8, 10)).collect();
    let asked = payments.iter().enumerate().map(|(n, payment)| replicas[n % 2].settle(payment));
    let answers = join_all(asked).await;
    let n_paid = answers.iter().filter(|answer| answer["success"] == true).count();
    assert_eq!(n_paid, 10, "{answers:#?}");
    let mut others = answers.iter().filter(|answer| answer["success"] == false);
    assert!(others.all(|answer| reason(answer) == Some(CAPPED)), "{answers:#?}");
    // Whoever was refused left nothing behind.
    assert_eq!(world.count("select count(*) from settlement").await, 10);
    assert_eq!(world.count(N_COUNTERS).await, 2);
    world.check_books().await;
    for service in replicas {
        service.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_told_although_nothing_fits_any_more() {
    let world = World::automine().await;
    let service = world.service().await;
    world.cap(&["--for", "payer", "--count", "1", "--per", "day"]).await;
    let payment = world.payment(0, 10);
    for replayed in [None, Some("true"), Some("true")] {
        let answer = service.settle_with_key(&payment, "order-1").await;
        assert_eq!(answer.json()["success"], json!(true), "{}", answer.body);
        assert_eq!(answer.header("idempotent-replayed"), replayed);
    }
    // What is wrong with a payment itself is told before any cap.
    let mut unsigned = world.payment(0, 10);
    unsigned["paymentPayload"]["payload"]["signature"] = json!("0x00");
    for path in ["/verify", "/settle"] {
        let answer = service.post(path, &unsigned).await.json();
        assert_eq!(reason(&answer), Some("invalid_exact_evm_signature"));
    }
    let used = service.post("/verify", &payment).await.json();
    assert_eq!(reason(&used), Some("invalid_exact_evm_nonce_already_used"));
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_that_cannot_be_read_keep_payments_from_being_promised() {
    let world = World::automine().await;
    let service = world.service().await;
    for table in ["cap", "budget_counter", "asset_price"] {
        let payment = world.payment(0, 10);
        let rename = |from: &str, to: &str| format!("alter table {from} rename to {to}");
        let away = sqlx::AssertSqlSafe(rename(table, "away"));
        sqlx::query(away).execute(&world.books).await.unwrap();
        let answer = service.post("/settle", &payment).await;
        assert_eq!(answer.status, 503, "{table}: {}", answer.body);
        assert!(answer.header("retry-after").is_some(), "{table}");
        let asked = Instant::now();
        // Verification needs no counters while there are no caps.
        let is_asked = table != "budget_counter";
        while is_asked && service.post("/verify", &payment).await.status != 503 {
            assert!(asked.elapsed() < BELIEF, "{table}: verification goes on");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let back = sqlx::AssertSqlSafe(rename("away", table));
        sqlx::query(back).execute(&world.books).await.unwrap();
        assert_eq!(service.settle(&payment).await["success"], json!(true), "{table}");
    }
    assert_eq!(world.count("select count(*) from settlement").await, 3);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_sets_shows_and_removes_caps_and_records_each_change() {
    let world = World::automine().await;
    let service = world.service().await;
    let shop = Shop::open(&world, "shop").await;
    let usdc = world.usdc();
    let set = [
        "cap",
        "set",
        "--for",
        "payer-at-merchant",
        "--merchant",
        "shop",
        "--amount",
        "100",
        "--asset",
        &usdc,
        "--per",
        "day",
    ];
    let cap = world.operator(&set).await;
    let told = [
        ("setBy", "operator"),
        ("subject", "payer_at_merchant"),
        ("measure", "amount"),
        ("period", "day"),
        ("limit", "100"),
    ];
    for (key, value) in told {
        assert_eq!(cap[key], json!(value), "{cap}");
    }
    assert_eq!(cap["payer"], Value::Null, "each one");
    let id = cap["capId"].as_str().unwrap();
    shop.is_paid(&service, &world.payment(7, 60), "shown").await;
    let shown = world.operator(&["cap", "show", id]).await;
    let payer = world.buyer(7).address();
    let merchant_id = cap["merchantId"].as_str().unwrap();
    assert_eq!(
        shown["usage"][0]["of"],
        json!(format!("payer:{payer:#x}@{merchant_id}")),
        "{shown}"
    );
    assert_eq!(shown["usage"][0]["used"], json!("60"));
    let listed = world.operator(&["cap", "list"]).await;
    assert_eq!(listed["caps"], json!([cap]));
    let plain = quittance(&world, &["cap", "list", "--merchant", "shop"]).await;
    let plain = String::from_utf8(plain.stdout).unwrap();
    assert!(plain.contains(id) && plain.contains("each payer at a merchant, 100 base"), "{plain}");
    let mut raised = set;
    raised[7] = "200";
    assert_eq!(world.operator(&raised).await["capId"], cap["capId"]);
    world.operator(&["cap", "remove", id]).await;
    for arguments in [&["cap", "remove", id][..], &["cap", "show", id]] {
        let again = quittance(&world, arguments).await;
        assert_eq!(again.status.code(), Some(1));
        assert!(stderr(&again).contains("there is no cap"), "{}", stderr(&again));
    }
    let some = |limit: &str| Some(limit.to_owned());
    let expected = [
        ("cap.set".to_owned(), None, some("100")),
        ("cap.set".to_owned(), some("100"), some("200")),
        ("cap.remove".to_owned(), some("200"), None),
    ];
    assert_eq!(recorded_limits(&world, id).await, expected);
    service.stop().await;
    world.stop().await;
}

/// What was done to a cap at the command line, and its limit before and after.
async fn recorded_limits(world: &World, id: &str) -> Vec<(String, Option<String>, Option<String>)> {
    let changes: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(
        "select action, before, after from audit where subject = $1 and actor_kind = 'command'
            and merchant_id is not null order by audit_id",
    )
    .bind(id)
    .fetch_all(&world.books)
    .await
    .unwrap();
    let limit = |state: Option<String>| {
        let state: Value = serde_json::from_str(&state?).unwrap();
        state["limit"].as_str().map(str::to_owned)
    };
    let told =
        changes.into_iter().map(|(action, before, after)| (action, limit(before), limit(after)));
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_not_set() {
    let world = World::automine().await;
    let (usdc, chain) = (world.usdc(), world.services.chain.chain_id.to_string());
    let payer = world.buyer(0).address().to_string();
    let nobody = "01900000-0000-7000-8000-000000000000";
    for (status, arguments) in [
        (64, &["--for", "payer", "--count", "1", "--per", "payment"][..]),
        (64, &["--for", "payer", "--amount", "1", "--per", "day"]),
        (64, &["--for", "payer", "--amount", "1", "--asset", "usdc", "--per", "day"]),
        (64, &["--for", "payer", "--amount", "-1", "--asset", &usdc, "--per", "day"]),
        (
            64,
            &["--for", "payer", "--amount", "1", "--count", "1", "--asset", &usdc, "--per", "day"],
        ),
        (64, &["--for", "payer", "--gas-wei", "1", "--per", "day"]),
        (64, &["--for", "payer", "--gas-wei", "1", "--chain", &chain, "--per", "hour"]),
        (64, &["--for", "key", "--gas-wei", "1", "--chain", &chain, "--per", "day"]),
        (64, &["--for", "merchant", "--payer", &payer, "--count", "1", "--per", "day"]),
        (64, &["--for", "payer", "--merchant", "x", "--count", "1", "--per", "day"]),
        (64, &["--for", "payer", "--per", "day"]),
        (64, &["--for", "payer", "--count", "1"]),
        (64, &["--for", "everybody", "--count", "1", "--per", "day"]),
        (1, &["--for", "merchant", "--merchant", "nobody", "--count", "1", "--per", "day"]),
        (1, &["--for", "key", "--key", nobody, "--count", "1", "--per", "day"]),
    ] {
        let output = quittance(&world, &[&["cap", "set"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
    for (status, arguments) in [
        (64, &["floor", "set", &usdc, "--coin-price", "0"][..]),
        (64, &["floor", "set", &usdc]),
        (64, &["floor", "set", "usdc", "--coin-price", "1"]),
        (1, &["floor", "remove", &usdc]),
    ] {
        let output = quittance(&world, arguments).await;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", stderr(&output));
    }
    assert_eq!(world.count("select count(*) from cap").await, 0);
    assert_eq!(world.count("select count(*) from audit where action like 'cap.%'").await, 0);
    world.stop().await;
}
