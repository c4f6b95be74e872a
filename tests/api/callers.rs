//! Those who ask: resource servers, merchants with keys of their own, operators at the command line;
//! and what every answer to them looks like.

use std::process::Output;

use serde_json::{Value, json};
use tokio::{process::Command, task::JoinHandle};

use crate::support::{Answer, Service, World};

/// A request under way, from a connection of its own: aborting it hangs up.
pub(crate) fn asking(
    service: &Service,
    path: &str,
    payment: &Value,
    idempotency_key: Option<&str>,
) -> JoinHandle<reqwest::Result<Answer>> {
    let mut request = reqwest::Client::new()
        .post(format!("{}{path}", service.url))
        .bearer_auth(&service.api_key)
        .json(payment);
    if let Some(key) = idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    tokio::spawn(async move {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await? })
    })
}

/// `quittance` with those arguments and the settings of `world`.
pub(crate) async fn quittance(world: &World, arguments: &[&str]) -> Output {
    quittance_with(&world.environment(), arguments).await
}

/// `quittance` with those arguments and no settings but these.
pub(crate) async fn quittance_with(
    settings: &[(&'static str, String)],
    arguments: &[&str],
) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quittance"))
        .args(arguments)
        .envs(settings.iter().map(|(key, value)| (key, value)))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap().trim()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap().trim()
}

/// A new merchant, and its key.
pub(crate) async fn merchant_key(world: &World, name: &str) -> String {
    let created = quittance(world, &["merchant", "create", name]).await;
    assert!(created.status.success(), "{}", stderr(&created));
    key(world, &["--merchant", name, "--test"]).await
}

/// A new key, made by `quittance key create` with those arguments.
pub(crate) async fn key(world: &World, arguments: &[&str]) -> String {
    let created = quittance(world, &[&["key", "create"], arguments].concat()).await;
    assert!(created.status.success(), "{}", stderr(&created));
    stdout(&created).to_owned()
}

/// Every answer of `path` has this shape, whatever its status (x402 reference 2.1 and 2.2).
pub(crate) fn assert_shape(path: &str, answer: &Value) {
    let members = answer.as_object().unwrap_or_else(|| panic!("not an object: {answer}"));
    let (verdict, reason, message, always) = match path {
        "/verify" => ("isValid", "invalidReason", "invalidMessage", &[][..]),
        "/settle" => ("success", "errorReason", "errorMessage", &["transaction", "network"][..]),
        _ => panic!("{path} has no shape"),
    };
    let good = members[verdict].as_bool().unwrap_or_else(|| panic!("no verdict: {answer}"));
    for key in always {
        assert!(members.get(*key).is_some_and(Value::is_string), "{key}: {answer}");
    }
    for key in [reason, message] {
        let said = members.get(key).map(|text| text.as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(said, (!good).then_some(true), "{key}: {answer}");
    }
    if let Some(payer) = members.get("payer") {
        assert!(payer.as_str().is_some_and(|payer| payer.len() == 42), "{answer}");
    }
    for key in members.keys() {
        let known = [verdict, reason, message, "payer"].contains(&key.as_str());
        assert!(known || always.contains(&key.as_str()), "unexpected {key}: {answer}");
    }
}

/// The reason in an answer of either route.
pub(crate) fn reason(answer: &Value) -> Option<&str> {
    answer.get("invalidReason").or_else(|| answer.get("errorReason"))?.as_str()
}

/// The transaction hash of an answer, which must be one.
pub(crate) fn hash(answer: &Value) -> alloy::primitives::B256 {
    answer["transaction"].as_str().unwrap().parse().unwrap_or_else(|_| panic!("{answer}"))
}

/// The answer says that the payment belongs to another request, and this of its transaction.
pub(crate) fn assert_duplicate(answer: &Value, transaction: &Value) {
    assert_shape("/settle", answer);
    assert_eq!(answer["errorReason"], json!("duplicate_settlement"), "{answer}");
    assert_eq!(answer["transaction"], *transaction, "{answer}");
}
