//! How much a merchant, and an address, may ask at a time.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    callers::{asking, assert_shape, key, merchant_key, quittance, reason, stderr, stdout},
    payments::AMOUNT,
    support::{Answer, Service, World},
};

const PATHS: [(&str, &str); 2] = [("/verify", "verify"), ("/settle", "settle")];
/// Five at once, and so few a second that a test is over before one more is there, or nearly so.
const SLOW: [(&str, &str); 4] = [
    ("QUITTANCE__LIMITS__VERIFY_PER_SECOND", "1"),
    ("QUITTANCE__LIMITS__VERIFY_BURST", "5"),
    ("QUITTANCE__LIMITS__SETTLE_PER_SECOND", "1"),
    ("QUITTANCE__LIMITS__SETTLE_BURST", "5"),
];
const BURST: usize = 5;

async fn ask(service: &Service, path: &str, key: &str) -> Answer {
    let headers = [("X-API-Key", key.to_owned())];
    service.send(Method::POST, path, &headers, "{}".to_owned()).await
}

/// Asks `n` times at once, and says how many were answered and what the others were told.
async fn ask_at_once(service: &Service, path: &str, key: &str, n: usize) -> (usize, Vec<Answer>) {
    let answers = join_all((0..n).map(|_| ask(service, path, key))).await;
    let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    (answered.len(), refused)
}

/// How many more than the burst can have passed since then, at one a second.
fn more_since(started: Instant) -> usize {
    usize::try_from(started.elapsed().as_secs()).unwrap()
}

fn assert_too_much(path: &str, answer: &Answer, said: &str) {
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert_shape(path, &answer.json());
    assert_eq!(reason(&answer.json()), Some("rate_limit_exceeded"), "{}", answer.body);
    let message = answer.json();
    let message = message.get("invalidMessage").or(message.get("errorMessage")).unwrap();
    assert_eq!(message, &format!("{said}; nothing is known against the payment"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// `"verify";r=4;t=1`
fn left(answer: &Answer, class: &str) -> usize {
    let header = answer.header("ratelimit").unwrap_or_else(|| panic!("{answer:?}"));
    let left = header.strip_prefix(&format!("\"{class}\";r=")).and_then(|h| h.strip_suffix(";t=1"));
    left.unwrap_or_else(|| panic!("{header}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_may_ask_its_burst_at_once_and_then_at_its_rate() {
    let world = World::automine().await;
    let service = world.service_with(&SLOW).await;
    let key = world.keys.merchant.reveal();
    for (path, class) in PATHS {
        let things = if class == "verify" { "verifications" } else { "settlements" };
        let under_way = if class == "verify" { 500 } else { 1_000 };
        let policy = format!(
            "\"{class}\";q=5;w=5, \"{class}-under-way\";q={under_way};qu=\"concurrent-requests\""
        );
        let started = Instant::now();
        for n in 1..=BURST {
            let answer = ask(&service, path, key).await;
            assert_eq!(answer.status, 200, "{n}: {}", answer.body);
            assert_eq!(answer.header("ratelimit-policy"), Some(&*policy));
            assert_eq!(answer.header("retry-after"), None);
            let (fewest, more) = (BURST - n, more_since(started));
            assert!((fewest..=fewest + more).contains(&left(&answer, class)), "{n}: {answer:?}");
        }
        let (passed, refused) = ask_at_once(&service, path, key, BURST).await;
        assert!(passed <= more_since(started), "{passed} after {:?}", started.elapsed());
        for answer in refused {
            let said = format!("this merchant may ask for 1 {things} a second, and 5 at once");
            assert_too_much(path, &answer, &said);
            assert_eq!(answer.header("ratelimit-policy"), Some(&*policy));
            assert_eq!(left(&answer, class), 0);
        }
        // What is refused is not counted: whoever goes on asking passes once a second all the same.
        let mut n_passed = passed;
        while n_passed < passed + 2 {
            assert!(started.elapsed() < Duration::from_secs(20), "{n_passed} passed");
            n_passed += usize::from(ask(&service, path, key).await.status == 200);
        }
        assert!(n_passed <= more_since(started), "{n_passed} after {:?}", started.elapsed());
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_counted_and_told_of_its_limit_too() {
    let world = World::automine().await;
    let service = world.service_with(&SLOW).await;
    let key = world.keys.merchant.reveal().to_owned();
    let started = Instant::now();
    let json = ("Content-Type", "application/json");
    for (n, (content_type, body, status)) in (1..).zip([
        (json, "[", 400),
        (json, "{}", 200),
        (("Content-Type", "text/plain"), "{}", 415),
    ]) {
        let headers = [("X-API-Key", key.clone()), (content_type.0, content_type.1.to_owned())];
        let answer = service.send(Method::POST, "/verify", &headers, body.to_owned()).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let fewest = BURST - n;
        assert!((fewest..=fewest + more_since(started)).contains(&left(&answer, "verify")));
    }
    // Who is nobody learns nothing of anybody's limit.
    let operator = world.keys.operator.reveal();
    for (key, status) in [("qk_test_0", 401), (operator, 403)] {
        let answer = ask(&service, "/verify", key).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        for header in ["ratelimit", "ratelimit-policy"] {
            assert_eq!(answer.header(header), None);
        }
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_the_merchants_and_each_class_has_its_own() {
    let world = World::automine().await;
    let service = world.service_with(&SLOW).await;
    let second = key(&world, &["--merchant", "dev merchant", "--test"]).await;
    let other = merchant_key(&world, "other").await;
    let first = world.keys.merchant.reveal();
    let started = Instant::now();
    // Two payers, by two keys.
    for n in 0..BURST {
        let key = [first, &second][n % 2];
        let headers = [("X-API-Key", key.to_owned())];
        let payment = world.payment(n % 2, AMOUNT).to_string();
        let answer = service.send(Method::POST, "/verify", &headers, payment).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["isValid"]), (200, &json!(true)));
    }
    for key in [first, &second] {
        let (passed, _) = ask_at_once(&service, "/verify", key, BURST).await;
        assert!(passed <= more_since(started), "{passed} of key {key:.14}");
    }
    for (path, key) in [("/settle", &*second), ("/verify", &other), ("/settle", &other)] {
        let (passed, refused) = ask_at_once(&service, path, key, BURST).await;
        assert_eq!((passed, refused.len()), (BURST, 0), "{path} of key {key:.14}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_held_to_its_limit_before_its_key_is_looked_at() {
    let world = World::automine().await;
    let settings = [
        ("QUITTANCE__LIMITS__ADDRESS_PER_SECOND", "1"),
        ("QUITTANCE__LIMITS__ADDRESS_BURST", "5"),
        ("QUITTANCE__SERVER__N_TRUSTED_PROXIES", "1"),
    ];
    let service = world.service_with(&settings).await;
    let paths = ["/verify", "/settle", "/supported", "/openapi.yaml", "/nothing"];
    for (n, path) in (1..).zip(paths) {
        // What the caller says of itself changes nothing.
        let from = |says: &str| {
            vec![("X-Forwarded-For", format!("{says}, 198.51.100.{n}")), service.authorization()]
        };
        let method = if n < 3 { Method::POST } else { Method::GET };
        let send = |headers: Vec<(&'static str, String)>| {
            let (service, method) = (&service, method.clone());
            async move { service.send(method, path, &headers, "{}".to_owned()).await }
        };
        let started = Instant::now();
        for n in 0..BURST {
            let answer = send(from(&format!("203.0.113.{n}"))).await;
            assert_ne!(answer.status, 429, "{n}: {}", answer.body);
        }
        let answers = join_all((0..BURST).map(|n| send(from(&format!("203.0.113.{n}"))))).await;
        let (refused, passed): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 429);
        assert!(passed.len() <= more_since(started), "{} at {path}", passed.len());
        let said = "this address may send 1 requests a second, and 5 at once";
        for answer in refused {
            match n {
                1 | 2 => assert_too_much(path, &answer, said),
                _ => {
                    let expected = json!({ "error": "rate_limit_exceeded", "message": said });
                    assert_eq!(answer.json(), expected);
                }
            }
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(answer.header("ratelimit"), None);
        }
        // Nobody's key, from there: it is not looked at. And from elsewhere it is.
        let nobody = [("X-API-Key", "qk_test_0".to_owned())];
        for (address, statuses) in
            [(format!("198.51.100.{n}"), [429, 401]), ("192.0.2.1".into(), [401; 2])]
        {
            let headers = [&[("X-Forwarded-For", address)], &nobody[..]].concat();
            let status =
                service.send(Method::POST, "/verify", &headers, String::new()).await.status;
            assert!(statuses[..=usize::from(more_since(started) > 0)].contains(&status.as_u16()));
        }
        // The operations port has no limit.
        for _ in 0..=2 * BURST {
            assert_eq!(service.operations("/livez").await.status, 200);
        }
        // From an address of its own each time, so that the last line before is within its limit.
        if n == 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    service.stop().await;
    world.stop().await;
}

/// Waits until that many settlements of the service are under way.
async fn until_under_way(world: &World, n: i64) {
    world.until("select count(*) from settlement", n).await;
}

async fn answer(task: JoinHandle<reqwest::Result<Answer>>) -> Value {
    task.await.unwrap().unwrap().json()
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_settlements_of_a_merchant_may_be_under_way() {
    let world = World::stepped().await;
    let settings = [("QUITTANCE__LIMITS__SETTLE_UNDER_WAY_MAX", "2")];
    let service = world.service_with(&settings).await;
    let other = merchant_key(&world, "other").await;
    let mine = world.keys.merchant.reveal();
    let first = asking(&service, "/settle", &world.payment(0, AMOUNT), None);
    let second = asking(&service, "/settle", &world.payment(1, AMOUNT), None);
    until_under_way(&world, 2).await;
    let refused = ask(&service, "/settle", mine).await;
    assert_too_much("/settle", &refused, "this merchant may have 2 settlements under way");
    assert_eq!(refused.header("ratelimit").map(|header| &header[..10]), Some("\"settle\";r"));
    // Others are not concerned, nor is what else it asks.
    assert_eq!(ask(&service, "/settle", &other).await.status, 200);
    assert_eq!(ask(&service, "/verify", mine).await.status, 200);

    // Who hangs up gives its place back.
    second.abort();
    let third = loop {
        let third = service.post("/settle", &json!({})).await;
        if third.status != 429 {
            break third;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(third.status, 200);
    let third = asking(&service, "/settle", &world.payment(2, AMOUNT), None);
    until_under_way(&world, 3).await;
    assert_eq!(ask(&service, "/settle", mine).await.status, 429);

    // Who is answered, too.
    world.until("select count(*) from settlement where status = 'submitted'", 3).await;
    world.node.mine(1).await;
    assert_eq!(answer(first).await["success"], true);
    assert_eq!(answer(third).await["success"], true);
    for _ in 0..3 {
        assert_eq!(ask(&service, "/settle", mine).await.status, 200);
    }
    let metrics = service.operations("/metrics").await.body;
    let counted = r#"quittance_rate_limited_total{class="settle",by="concurrency"}"#;
    assert!(metrics.contains(counted), "{metrics}");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_may_have_rates_of_its_own() {
    let world = World::automine().await;
    let service = world.service().await;
    let mine = world.keys.merchant.reveal();
    let other = merchant_key(&world, "other").await;
    let limits = async |flags: &[&str]| {
        let words = [&["merchant", "limits", "dev merchant", "--json"], flags].concat();
        let output = quittance(&world, &words).await;
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_str::<Value>(stdout(&output)).unwrap()
    };
    let told = limits(&[]).await;
    assert_eq!(told["verify"], json!({ "perSecond": 2000, "burst": 4000, "isOwn": false }));
    assert_eq!(told["settle"], json!({ "perSecond": 500, "burst": 1000, "isOwn": false }));
    assert_eq!(told["read"], json!({ "perSecond": 100, "burst": 200, "isOwn": false }));
    let n_changed = "select count(*) from audit where action = 'merchant.set_rates'";
    assert_eq!(world.count(n_changed).await, 0, "nothing was changed");

    for (flags, expected) in [
        (&["--verify", "1/3"][..], ["q=3;w=3", "q=1000;w=2"]),
        (&["--verify", "10/20", "--settle", "7/7"], ["q=20;w=2", "q=7;w=1"]),
        (&["--verify", "default"], ["q=4000;w=2", "q=7;w=1"]),
    ] {
        let told = limits(flags).await;
        assert_eq!(limits(&[]).await, told);
        let changed_at = Instant::now();
        for ((path, _), expected) in PATHS.into_iter().zip(expected) {
            loop {
                let answer = ask(&service, path, mine).await;
                let policy = answer.header("ratelimit-policy").unwrap().to_owned();
                if policy.contains(expected) {
                    break;
                }
                assert!(changed_at.elapsed() < Duration::from_secs(2), "{policy}, not {expected}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let answer = ask(&service, path, &other).await;
            let of_house = if path == "/verify" { "q=4000;" } else { "q=1000;" };
            assert!(answer.header("ratelimit-policy").unwrap().contains(of_house), "{answer:?}");
        }
    }
    let records: Vec<(String, String)> = sqlx::query_as(
        "select before, after from audit where action = 'merchant.set_rates' and actor_kind = 'command'
            and merchant_id::text = subject order by audit_id",
    )
    .fetch_all(&world.books)
    .await
    .unwrap();
    let expected = [
        ("{}", r#"{"verify":"1/3"}"#),
        (r#"{"verify":"1/3"}"#, r#"{"settle":"7/7","verify":"10/20"}"#),
        (r#"{"settle":"7/7","verify":"10/20"}"#, r#"{"settle":"7/7"}"#),
    ];
    assert_eq!(records, expected.map(|(before, after)| (before.to_owned(), after.to_owned())));

    let plain = quittance(&world, &["merchant", "limits", "dev merchant"]).await;
    assert!(stdout(&plain).contains("settle  7 a second, 7 at once (its own)"), "{plain:?}");
    for (words, status, said) in [
        (["merchant", "limits", "dev merchant", "--verify", "0/1"], 64, "between 1 and 100000"),
        (["merchant", "limits", "dev merchant", "--read", "2/1201"], 64, "between 1 and 1200"),
        (["merchant", "limits", "dev merchant", "--settle", "many"], 64, "is not a rate"),
        (["merchant", "limits", "nobody", "--settle", "1/1"], 1, "there is no such merchant"),
    ] {
        let output = quittance(&world, &words).await;
        assert_eq!(output.status.code(), Some(status), "{words:?}");
        assert!(stderr(&output).contains(said), "{words:?}: {}", stderr(&output));
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_set_rates_over_http_and_nobody_else_does() {
    let world = World::automine().await;
    let service = world.service().await;
    let id: uuid::Uuid = sqlx::query_scalar("select merchant_id from merchant limit 1")
        .fetch_one(&world.books)
        .await
        .unwrap();
    let operator = world.keys.operator.reveal();
    let ask = async |method: Method, key: &str, id: &str, body: &str| {
        let headers = [("X-API-Key", key.to_owned())];
        let path = format!("/v1/merchants/{id}/limits");
        service.send(method, &path, &headers, body.to_owned()).await
    };
    let id = &id.to_string();
    let house = json!({ "merchantId": id,
        "verify": { "perSecond": 2000, "burst": 4000, "isOwn": false },
        "settle": { "perSecond": 500, "burst": 1000, "isOwn": false },
        "read": { "perSecond": 100, "burst": 200, "isOwn": false } });
    let rate = |per_second: u32, burst: u32| json!({ "perSecond": per_second, "burst": burst, "isOwn": true });
    let mut changed = house.clone();
    for (method, body, changes) in [
        (Method::GET, "", vec![]),
        (
            Method::PUT,
            r#"{"verify":{"perSecond":1,"burst":600},"read":{"perSecond":100000,"burst":1}}"#,
            vec![("verify", rate(1, 600)), ("read", rate(100_000, 1))],
        ),
        (Method::GET, "", vec![]),
        // All of them are replaced.
        (
            Method::PUT,
            r#"{"settle":{"perSecond":5,"burst":6},"verify":null}"#,
            vec![
                ("verify", house["verify"].clone()),
                ("settle", rate(5, 6)),
                ("read", house["read"].clone()),
            ],
        ),
        (Method::DELETE, "", vec![("settle", house["settle"].clone())]),
        (Method::GET, "", vec![]),
    ] {
        for (class, rate) in changes {
            changed[class] = rate;
        }
        let answer = ask(method.clone(), operator, id, body).await;
        assert_eq!(answer.status, 200, "{method} {body}: {}", answer.body);
        assert_eq!(answer.json(), changed, "{method} {body}");
    }
    let n_changed = "select count(*) from audit where action = 'merchant.set_rates'
        and actor_kind = 'operator'";
    assert_eq!(world.count(n_changed).await, 3);
    for (body, said) in [
        (
            r#"{"verify":{"perSecond":0,"burst":1}}"#,
            "verify: 0 a second is not between 1 and 100000",
        ),
        (r#"{"read":{"perSecond":1,"burst":601}}"#, "read: 601 at once is not between 1 and 600"),
        (r#"{"settle":{"perSecond":1}}"#, "missing field `burst`"),
        (r#"{"write":{"perSecond":1,"burst":1}}"#, "unknown field `write`"),
        ("[", "EOF"),
    ] {
        let answer = ask(Method::PUT, operator, id, body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert!(answer.json()["message"].as_str().unwrap().contains(said), "{}", answer.body);
    }
    let nobody = "01900000-0000-7000-8000-000000000000";
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        for unknown in [nobody, "dev"] {
            assert_eq!(ask(method.clone(), operator, unknown, "{}").await.status, 404, "{unknown}");
        }
        let answer = ask(method.clone(), world.keys.merchant.reveal(), id, "{}").await;
        assert_eq!(answer.status, 403, "{}", answer.body);
        // Counted among what the merchant reads.
        assert!(answer.header("ratelimit").unwrap().starts_with("\"read\";r="));
        assert_eq!(ask(method, "qk_test_0", id, "{}").await.status, 401);
    }
    assert_eq!(world.count(n_changed).await, 3);
    service.stop().await;
    world.stop().await;
}
