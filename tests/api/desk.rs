//! The API of merchants and operators, as they use it.

use reqwest::Method;
use serde_json::Value;

use crate::{
    callers::{quittance, stderr, stdout},
    support::{Answer, Service, World},
};

/// Asks `/v1` with that key; `null` for no body.
pub(crate) async fn ask(
    service: &Service,
    key: &str,
    method: Method,
    path: &str,
    body: Value,
) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    service.send(method, path, &[("X-API-Key", key.to_owned())], body).await
}

/// Asks and expects that status; the JSON of the answer.
pub(crate) async fn told(
    service: &Service,
    key: &str,
    (method, path, body): (&str, &str, Value),
    status: u16,
) -> Value {
    let what = format!("{method} {path} {body}");
    let answer = ask(service, key, method.parse().unwrap(), path, body).await;
    assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.body);
    let json = answer.json();
    if status >= 400 {
        let members: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(members, ["error", "message"], "{what}: {json}");
    }
    json
}

/// Asks and expects to be refused so; the message.
pub(crate) async fn refused(
    service: &Service,
    key: &str,
    asked: (&str, &str, Value),
    status: u16,
    code: &str,
) -> String {
    let answer = told(service, key, asked, status).await;
    assert_eq!(answer["error"], code, "{answer}");
    answer["message"].as_str().unwrap().to_owned()
}

/// What a command prints with `--json`.
pub(crate) async fn printed(world: &World, arguments: &[&str]) -> Value {
    let output = quittance(world, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_str(stdout(&output)).unwrap()
}

/// A new test key, made at the command line with those further arguments: the key and its id.
pub(crate) async fn new_key(world: &World, merchant: &str, further: &[&str]) -> (String, String) {
    let create = [&["key", "create", "--merchant", merchant, "--test"][..], further].concat();
    let made = printed(world, &create).await;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("key"), text("keyId"))
}

/// The text of a member.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}
