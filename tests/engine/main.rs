//! What the engine must survive, one fear a file, on a real anvil and a real Postgres.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod anvil;
mod books;
mod clock_skew;
mod crash_points;
mod database;
mod defects;
mod duplicates;
mod endpoints;
mod expiry;
mod front_run;
mod latency;
mod leases;
mod lying_node;
mod odd_token;
mod poison;
mod reorg;
mod restart;
mod sending;
mod tools;
mod wallets_cli;

use serde_json::Value;
use support::Service;
use tokio::task::JoinHandle;

/// Asks for a settlement in the background, as a resource server that waits would.
fn settle_in_background(service: &Service, payment: &Value) -> JoinHandle<Option<Value>> {
    let (url, key, payment) = (service.url.clone(), service.api_key.clone(), payment.clone());
    tokio::spawn(async move {
        let http = reqwest::Client::new();
        let answer =
            http.post(format!("{url}/settle")).bearer_auth(key).json(&payment).send().await;
        answer.ok()?.json().await.ok()
    })
}
