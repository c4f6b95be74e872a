//! How long API keys work, how they are replaced and revoked, and when they were last used.

#![cfg(feature = "fault-injection")]

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    desk::{ask, new_key, printed, refused, text, told},
    payments::AMOUNT,
    support::{Service, World},
};

/// A wall clock that is fast by more than an hour.
const AN_HOUR_LATER: (&str, &str) = ("QUITTANCE_CLOCK_OFFSET_SECONDS", "3700");
/// And one that is fast by a little less.
const NEARLY_AN_HOUR_LATER: (&str, &str) = ("QUITTANCE_CLOCK_OFFSET_SECONDS", "3400");

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_when_it_was_made_to() {
    let world = World::automine().await;
    let (before, after) = tokio::join!(
        world.service_with(&[NEARLY_AN_HOUR_LATER]),
        world.service_with(&[AN_HOUR_LATER]),
    );
    let (ends, _) = new_key(&world, "dev merchant", &["--expires-in", "1h"]).await;
    let (lasts, _) = new_key(&world, "dev merchant", &[]).await;
    let me = told(&before, &ends, ("GET", "/v1/me", Value::Null), 200).await;
    assert!(text(&me["key"], "expiresAt").ends_with('Z'), "{me}");
    let asked = ("GET", "/v1/me", Value::Null);
    let said = refused(&after, &ends, asked, 401, "unauthorized").await;
    assert!(said.contains("expired"), "{said}");
    for service in [&before, &after] {
        let me = told(service, &lasts, ("GET", "/v1/me", Value::Null), 200).await;
        assert_eq!(me["key"]["expiresAt"], Value::Null);
    }
    before.stop().await;
    after.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_goes_on_for_its_overlap() {
    let world = World::automine().await;
    let (now, later) = tokio::join!(world.service(), world.service_with(&[AN_HOUR_LATER]));
    let further = ["--scopes", "settle,manage", "--name", "till", "--expires-in", "30d"];
    let (old, old_id) = new_key(&world, "dev merchant", &further).await;
    let rotate = format!("/v1/keys/{old_id}/rotate");
    let (narrow, _) = new_key(&world, "dev merchant", &["--scopes", "manage"]).await;
    refused(&now, &narrow, ("POST", &rotate, json!({})), 403, "forbidden").await;
    for (wrong, named) in [
        (json!({ "overlapSeconds": -1 }), "overlapSeconds"),
        (json!({ "overlapSeconds": 2_592_001 }), "overlapSeconds"),
        (json!({ "overlap": 1 }), "overlap"),
    ] {
        let said = refused(&now, &old, ("POST", &rotate, wrong), 400, "invalid_request").await;
        assert!(said.contains(named), "{said}");
    }
    let made = told(&now, &old, ("POST", &rotate, json!({ "overlapSeconds": 3_600 })), 201).await;
    let new = text(&made, "key").to_owned();
    assert_eq!((&made["scopes"], &made["name"]), (&json!(["settle", "manage"]), &json!("till")));
    assert!(made["expiresAt"].is_string(), "it lives as long as the old one: {made}");
    for (service, key, works) in
        [(&now, &old, true), (&now, &new, true), (&later, &old, false), (&later, &new, true)]
    {
        let answer = ask(service, key, Method::GET, "/v1/me", Value::Null).await;
        assert_eq!(answer.status == 200, works, "{}", answer.body);
    }
    refused(&now, &old, ("POST", &rotate, json!({})), 409, "conflict").await;
    // Without overlap it ends at once, even for who was believed just now.
    let rotate = format!("/v1/keys/{}/rotate", text(&made, "keyId"));
    let made = told(&now, &new, ("POST", &rotate, json!({ "overlapSeconds": 0 })), 201).await;
    let within = until_refused(&now, &new).await;
    assert!(within < Duration::from_secs(1), "{within:?}");
    told(&now, text(&made, "key"), ("GET", "/v1/me", Value::Null), 200).await;
    now.stop().await;
    later.stop().await;
    world.stop().await;
}

/// How long a key still works, asked all the time, so that being used does not keep it alive.
async fn until_refused(service: &Service, key: &str) -> Duration {
    let started = Instant::now();
    loop {
        let answer = ask(service, key, Method::GET, "/v1/me", Value::Null).await;
        if answer.status == 401 {
            return started.elapsed();
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(started.elapsed() < Duration::from_secs(5), "it works for ever");
        // Less often than a merchant may read.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_takes_effect_on_every_replica_within_a_second() {
    let world = World::automine().await;
    let replicas = world.replicas(2).await;
    let operator = world.keys.operator.reveal();
    for _ in 0..3 {
        let (key, id) = new_key(&world, "dev merchant", &[]).await;
        for replica in &replicas {
            told(replica, &key, ("GET", "/v1/me", Value::Null), 200).await;
        }
        let path = format!("/v1/keys/{id}");
        let revoked = told(&replicas[0], operator, ("DELETE", &path, Value::Null), 200).await;
        assert_eq!(revoked["isValid"], json!(false));
        let (one, other) =
            tokio::join!(until_refused(&replicas[0], &key), until_refused(&replicas[1], &key));
        assert!(one.max(other) < Duration::from_secs(1), "{one:?} and {other:?}");
        // Void it stays, and a repetition changes nothing.
        let again = told(&replicas[1], operator, ("DELETE", &path, Value::Null), 200).await;
        assert_eq!(again["revokedAt"], revoked["revokedAt"]);
        let rotate = format!("{path}/rotate");
        refused(&replicas[1], operator, ("POST", &rotate, json!({})), 409, "conflict").await;
    }
    for replica in replicas {
        replica.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_is_known_without_a_write_for_each() {
    let world = World::automine().await;
    let service = world.service().await;
    for sql in [
        "create table written (api_key_id uuid)",
        "create function note_write() returns trigger language plpgsql as
         $$ begin insert into written values (new.api_key_id); return null; end $$",
        "create trigger note_write after update on api_key
         for each row execute function note_write()",
    ] {
        sqlx::raw_sql(sql).execute(&world.books).await.unwrap();
    }
    let (unused, unused_id) = new_key(&world, "dev merchant", &[]).await;
    let payment = world.payment(0, AMOUNT);
    for _ in 0..100 {
        service.verify(&payment).await;
    }
    assert_eq!(world.count("select count(*) from written").await, 0);
    // At the stop at the latest; every half minute otherwise.
    service.stop().await;
    assert_eq!(world.count("select count(*) from written").await, 1);
    let just_now = "select count(*) from api_key where last_used_at > now() - interval '1 minute'";
    assert_eq!(world.count(just_now).await, 1);
    let listed = printed(&world, &["key", "list", "--merchant", "dev merchant"]).await;
    for key in listed.as_array().unwrap() {
        assert_eq!(key["lastUsedAt"].is_null(), key["keyId"] == *unused_id, "{key}");
    }
    drop(unused);
    world.stop().await;
}
