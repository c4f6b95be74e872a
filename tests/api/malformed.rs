//! Bytes that are no question about a payment. None of them may cost a 500, or an answer that a
//! client cannot read.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    callers::{assert_shape, reason},
    payments::{AMOUNT, VERSIONS},
    support::{Answer, Service, World},
};

const PATHS: [&str; 2] = ["/verify", "/settle"];
/// The documented limit (`http::MAX_BODY_BYTES`), repeated here on purpose.
const MAX_BODY_BYTES: usize = 262_144;

/// A refusal of the question itself, in the shape of its route.
fn assert_not_a_question(path: &str, answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what} at {path}: {}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what} at {path}");
    assert!(answer.header("x-request-id").is_some(), "{what} at {path}");
    assert_shape(path, &answer.json());
    assert_eq!(reason(&answer.json()), Some("invalid_request"), "{what} at {path}");
    if path == "/settle" {
        assert_eq!(answer.json()["transaction"], json!(""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_object_is_a_bad_request() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT).to_string();
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let nested = |n: usize| format!(r#"{{"x402Version":{}}}"#, deep(n));
    for (what, body) in [
        ("nothing", String::new()),
        ("white space", " \n".to_owned()),
        ("text", "hello".to_owned()),
        ("a form", "x402Version=2".to_owned()),
        ("NUL", "\0".to_owned()),
        ("an array", format!("[{payment}]")),
        ("a string", json!(payment).to_string()),
        ("a number", "2".to_owned()),
        ("null", "null".to_owned()),
        ("half an object", payment[..payment.len() / 2].to_owned()),
        ("two objects", format!("{payment}{payment}")),
        ("a trailing comma", r#"{"x402Version":2,}"#.to_owned()),
        ("a byte order mark", format!("\u{feff}{payment}")),
        ("deep nesting", deep(100_000)),
        ("deep nesting below a known key", nested(100_000)),
        ("half of deep nesting", "[".repeat(200_000)),
        ("a number of many digits", format!(r#"{{"x402Version":1e{}}}"#, "9".repeat(1_000))),
    ] {
        for path in PATHS {
            let answer =
                service.send(Method::POST, path, &[service.authorization()], body.clone()).await;
            assert_not_a_question(path, &answer, 400, what);
        }
    }
    // An object that asks nothing is a question already, and the verdict is no.
    for path in PATHS {
        let answer = service.post(path, &json!({})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(reason(&answer.json()), Some("invalid_x402_version"));
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_json_by_its_header_is_refused() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT).to_string();
    for path in PATHS {
        for wrong in ["text/plain", "application/x-www-form-urlencoded", "json", "", "text/json2"] {
            let headers = [service.authorization(), ("Content-Type", wrong.to_owned())];
            let answer = service.send(Method::POST, path, &headers, payment.clone()).await;
            assert_not_a_question(path, &answer, 415, wrong);
        }
        let head = format!("POST {path} HTTP/1.1\r\n{}", authorization(&service));
        let raw = format!("{head}Content-Length: {}\r\n\r\n{payment}", payment.len());
        let answer = raw_answer(&service, &[raw.as_bytes()], Duration::ZERO).await;
        assert!(answer.starts_with("HTTP/1.1 415"), "without a content type: {answer}");
        assert_shape(path, &body_of(&answer));
    }
    for right in
        ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x402+json"]
    {
        let headers = [service.authorization(), ("Content-Type", right.to_owned())];
        let answer = service.send(Method::POST, "/verify", &headers, payment.clone()).await;
        assert_eq!(answer.json()["isValid"], json!(true), "{right}: {}", answer.body);
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_have_262144_bytes_and_not_one_more() {
    let world = World::automine().await;
    let service = world.service().await;
    let payment = world.payment(0, AMOUNT).to_string();
    let padded = |n: usize| format!("{payment}{}", " ".repeat(n - payment.len()));
    for path in PATHS {
        for (n_bytes, status) in [(MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)] {
            let headers = [service.authorization()];
            let answer = service.send(Method::POST, path, &headers, padded(n_bytes)).await;
            assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
            if status == 200 {
                let verdict = answer.json();
                let good = verdict.get("isValid").or_else(|| verdict.get("success"));
                assert_eq!(good, Some(&json!(true)), "{verdict}");
            } else {
                assert_not_a_question(path, &answer, 413, "one byte more");
            }
        }
        // Chunked, its length is known to nobody before the end.
        let head = chunked_head(&service, path);
        let chunk = format!("1000\r\n{}\r\n", "[".repeat(4_096));
        let mut parts = vec![head.as_bytes()];
        parts.extend(std::iter::repeat_n(chunk.as_bytes(), MAX_BODY_BYTES / 4_096 + 1));
        let answer = raw_answer(&service, &parts, Duration::ZERO).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert_shape(path, &body_of(&answer));
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let world = World::automine().await;
    let service = world.service().await;
    let mut asked = tokio::task::JoinSet::new();
    let service = std::sync::Arc::new(service);
    for path in PATHS {
        let chunked = chunked_head(&service, path);
        let sized = chunked.replace("Transfer-Encoding: chunked", "Content-Length: 1000");
        let trickle: Vec<String> = std::iter::repeat_n("1\r\n \r\n".to_owned(), 100).collect();
        for (what, parts) in [
            ("a chunked body that stops", vec![chunked.clone(), "1\r\n{\r\n".to_owned()]),
            ("a sized body that stops", vec![sized, "{".to_owned()]),
            ("a body that trickles", [vec![chunked.clone()], trickle].concat()),
        ] {
            let service = std::sync::Arc::clone(&service);
            asked.spawn(async move {
                let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
                let answer = raw_answer(&service, &parts, Duration::from_millis(100)).await;
                assert!(answer.starts_with("HTTP/1.1 408"), "{what} at {path}: {answer}");
                assert_shape(path, &body_of(&answer));
            });
        }
    }
    asked.join_all().await;
    let verdict = service.verify(&world.payment(0, AMOUNT)).await;
    assert_eq!(verdict["isValid"], json!(true), "the service goes on");
    std::sync::Arc::into_inner(service).unwrap().stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_answer_that_gave_up_its_body() {
    let world = World::automine().await;
    let service = world.service().await;
    let head = "POST /verify HTTP/1.1\r\nHost: quittance\r\nContent-Type: application/json\r\n";
    let (name, key) = service.authorization();
    let known = format!("{head}{name}: {key}\r\n");
    let (chunked, sized) =
        ("Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", "Content-Length: 1000\r\n\r\n{");
    let asked = &service;
    let cases = [
        ("408 of a sized body", format!("{known}{sized}"), 408),
        ("408 of a chunked body", format!("{known}{chunked}"), 408),
        ("401 of a sized body", format!("{head}{sized}"), 401),
        ("401 of a chunked body", format!("{head}{chunked}"), 401),
    ];
    let lasting = join_all(cases.map(async |(what, start, status)| {
        let mut conversation = Conversation::open(asked).await;
        assert!(conversation.say_until(&[start.as_bytes()], Duration::ZERO, is_whole).await);
        let status = format!("HTTP/1.1 {status}");
        assert!(conversation.answer.starts_with(&status), "{what}: {}", conversation.answer);
        let ended = conversation.say_until(&[], Duration::ZERO, |_, is_ended| is_ended).await;
        (!ended).then_some(what)
    }))
    .await;
    let lasting: Vec<_> = lasting.into_iter().flatten().collect();
    assert!(lasting.is_empty(), "whoever sends nothing keeps its connection: {lasting:?}");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chunk_is_a_bad_request() {
    let world = World::automine().await;
    let service = world.service().await;
    for path in PATHS {
        let head = chunked_head(&service, path);
        let parts = [head.as_bytes(), b"zz\r\n{}\r\n"];
        let answer = raw_answer(&service, &parts, Duration::from_millis(50)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_or_path_is_told_what_is_right() {
    let world = World::automine().await;
    let service = world.service().await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        for path in PATHS {
            let answer = service.send(method.clone(), path, &[], String::new()).await;
            assert_not_a_question(path, &answer, 405, method.as_str());
            assert_eq!(answer.header("allow"), Some("POST"));
        }
    }
    for method in [Method::POST, Method::PUT] {
        let answer = service.send(method, "/supported", &[], "{}".to_owned()).await;
        assert_eq!(answer.status, 405);
        assert_eq!(answer.header("allow"), Some("GET"));
        assert_eq!(answer.json()["error"], json!("invalid_request"));
    }
    for path in ["/", "/verify/", "//verify", "/Verify", "/settle/1", "/metrics", "/readyz", "/%00"]
    {
        for method in [Method::GET, Method::POST] {
            let answer = service.send(method, path, &[], String::new()).await;
            assert_eq!(answer.status, 404, "{path}: {}", answer.body);
            assert_eq!(answer.json()["error"], json!("not_found"), "{path}");
            assert!(answer.header("x-request-id").is_some(), "{path}");
        }
    }
    assert_eq!(service.operations("/verify").await.status, 404);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_value_anywhere_gets_an_answer_of_the_right_shape() {
    let world = World::automine().await;
    let service = world.service().await;
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("0xzz"),
        json!("eip155:0"),
        json!("\u{0}"),
        json!("\u{202e}💸"),
        json!("9".repeat(100)),
        json!(format!("0x{}", "f".repeat(64))),
        json!("x".repeat(20_000)),
        json!([[{}]]),
        json!({}),
        json!({ "from": "0x", "name": 1, "toString": null }),
    ];
    let mut n_asked = 0_u32;
    for version in VERSIONS {
        let payment = version.form(&world.payment(0, AMOUNT));
        for pointer in pointers(&payment) {
            for value in &odd {
                let mut changed = payment.clone();
                *changed.pointer_mut(&pointer).unwrap() = value.clone();
                for path in PATHS {
                    let answer = service.post(path, &changed).await;
                    let status = answer.status.as_u16();
                    let at = || format!("{path} {pointer} = {value}: {status} {}", answer.body);
                    assert!(status == 200 || status == 400, "{}", at());
                    assert_shape(path, &answer.json());
                    n_asked += 1;
                }
            }
        }
        for pointer in pointers(&payment).iter().filter(|pointer| !pointer.is_empty()) {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let mut changed = payment.clone();
            changed.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
            for path in PATHS {
                let answer = service.post(path, &changed).await;
                assert_eq!(answer.status, 200, "{path} without {pointer}: {}", answer.body);
                assert_shape(path, &answer.json());
            }
        }
    }
    assert!(n_asked > 1_000, "{n_asked}");
    // Changes that mean nothing left the payments good, and each was paid once.
    assert_eq!(world.payee_balance().await, 2 * AMOUNT);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

/// The place of every value in `json`, itself included.
fn pointers(json: &Value) -> Vec<String> {
    let Value::Object(members) = json else { return vec![String::new()] };
    let below = members
        .iter()
        .flat_map(|(key, value)| pointers(value).into_iter().map(move |at| format!("/{key}{at}")));
    std::iter::once(String::new()).chain(below).collect()
}

fn authorization(service: &Service) -> String {
    let (name, value) = service.authorization();
    format!("Host: quittance\r\nConnection: close\r\n{name}: {value}\r\n")
}

fn chunked_head(service: &Service, path: &str) -> String {
    let start = format!("POST {path} HTTP/1.1\r\n{}", authorization(service));
    format!("{start}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
}

/// What the service answers to these bytes, sent with a pause after each part.
async fn raw_answer(service: &Service, parts: &[&[u8]], pause: Duration) -> String {
    let mut conversation = Conversation::open(service).await;
    let heard = conversation.say_until(parts, pause, is_whole).await;
    assert!(heard, "no whole answer in time: {:?}", conversation.answer);
    conversation.answer
}

/// A connection, and what came back on it.
struct Conversation {
    questions: OwnedWriteHalf,
    answers: OwnedReadHalf,
    answer: String,
    is_ended: bool,
}

impl Conversation {
    async fn open(service: &Service) -> Self {
        let address = service.url.trim_start_matches("http://");
        let (answers, questions) = TcpStream::connect(address).await.unwrap().into_split();
        Self { questions, answers, answer: String::new(), is_ended: false }
    }

    /// Goes on sending parts, a pause after each, until `done`; `false` if it is not after a while.
    async fn say_until(
        &mut self,
        parts: &[&[u8]],
        pause: Duration,
        done: fn(&str, bool) -> bool,
    ) -> bool {
        let Self { questions, answers, answer, is_ended } = self;
        let say = async {
            for part in parts {
                // The service may answer, and close, before everything is sent.
                if questions.write_all(part).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            std::future::pending::<()>().await;
        };
        let listen = async {
            let mut buffer = [0; 4_096];
            while !done(answer, *is_ended) {
                match answers.read(&mut buffer).await {
                    Ok(n @ 1..) => answer.push_str(std::str::from_utf8(&buffer[..n]).unwrap()),
                    Ok(0) | Err(_) => *is_ended = true,
                }
            }
        };
        tokio::select! {
            () = say => unreachable!("saying never ends by itself"),
            heard = tokio::time::timeout(Duration::from_secs(15), listen) => heard.is_ok(),
        }
    }
}

/// Whether a response has arrived up to its last byte.
fn is_whole(answer: &str, is_ended: bool) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return is_ended };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    is_ended || length.is_some_and(|length| body.len() >= length.parse::<usize>().unwrap())
}

fn body_of(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no body: {answer}"));
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}
