//! Every change of merchants and keys leaves a record, and nothing else does.

use serde_json::{Value, json};

use crate::{
    callers::{quittance, stdout},
    desk::{new_key, printed, refused, text, told},
    support::World,
};

/// The members of `after` that differ from `before`.
fn changed(record: &Value) -> Vec<&str> {
    let after = record["after"].as_object().unwrap();
    let differs = |name: &&String| record["before"].get(*name) != after.get(*name);
    after.keys().filter(differs).map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_leaves_a_record_of_who_when_where_before_and_after() {
    let world = World::automine().await;
    let service = world.service().await;
    let operator = world.keys.operator.reveal();
    let newest = async || {
        let page = told(&service, operator, ("GET", "/v1/audit?limit=1", Value::Null), 200).await;
        page["records"][0].clone()
    };
    let operators_id = told(&service, operator, ("GET", "/v1/me", Value::Null), 200).await;
    let operators_id = text(&operators_id["key"], "keyId").to_owned();
    let create = ("POST", "/v1/merchants", json!({ "name": "shop" }));
    let shop = told(&service, operator, create, 201).await;
    let id = text(&shop, "merchantId").to_owned();
    let made = newest().await;
    assert_eq!((&made["action"], &made["after"]), (&json!("merchant.create"), &shop), "{made}");
    assert_eq!((&made["before"], text(&made, "actorKind")), (&Value::Null, "operator"));
    assert_eq!((text(&made, "actor"), text(&made, "origin")), (&*operators_id, "127.0.0.1"));
    assert_eq!((text(&made, "subject"), text(&made, "merchantId")), (&*id, &*id));
    let path = format!("/v1/merchants/{id}");
    let why = json!({ "reason": "a reason" });
    for (asked, action, what) in [
        (("PATCH", path.clone(), json!({ "waitFor": "safe" })), "merchant.set", "waitFor"),
        (("POST", format!("{path}/suspend"), why.clone()), "merchant.suspend", "status"),
        (("POST", format!("{path}/resume"), why.clone()), "merchant.resume", "status"),
    ] {
        told(&service, operator, (asked.0, &asked.1, asked.2), 200).await;
        let made = newest().await;
        assert_eq!(text(&made, "action"), action);
        assert!(changed(&made).contains(&what), "{made}");
        assert_eq!(text(&made, "subject"), id);
    }

    // A merchant's own changes are in its own name.
    let (key, key_id) = new_key(&world, "shop", &["--scopes", "read,manage"]).await;
    let by_command = newest().await;
    assert_eq!(
        (text(&by_command, "actorKind"), text(&by_command, "action")),
        ("command", "key.create")
    );
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(text(&by_command, "origin"), host.trim());
    let second = told(&service, &key, ("POST", "/v1/keys", json!({})), 201).await;
    let made = newest().await;
    assert_eq!((text(&made, "actorKind"), text(&made, "actor")), ("merchant", &*key_id));
    let second_id = text(&second, "keyId").to_owned();
    assert_eq!((text(&made, "subject"), text(&made, "merchantId")), (&*second_id, &*id));
    let rotate = format!("/v1/keys/{second_id}/rotate");
    let third = told(&service, &key, ("POST", &rotate, json!({})), 201).await;
    let made = newest().await;
    assert_eq!((text(&made, "action"), text(&made, "subject")), ("key.rotate", &*second_id));
    assert_eq!(changed(&made), ["expiresAt", "replacedBy"], "{made}");
    assert_eq!(made["after"]["replacedBy"], third["keyId"]);
    told(&service, &key, ("DELETE", &format!("/v1/keys/{second_id}"), Value::Null), 200).await;
    let made = newest().await;
    assert_eq!(text(&made, "action"), "key.revoke");
    assert_eq!(changed(&made), ["isValid", "revokedAt"], "{made}");

    // What changes nothing leaves nothing, and neither does what fails.
    let last = newest().await;
    told(&service, &key, ("DELETE", &format!("/v1/keys/{second_id}"), Value::Null), 200).await;
    told(&service, operator, ("POST", &format!("{path}/resume"), why.clone()), 200).await;
    refused(&service, &key, ("POST", &rotate, json!({})), 409, "conflict").await;
    let taken = json!({ "name": "dev merchant", "waitFor": "safe" });
    refused(&service, operator, ("PATCH", &path, taken), 409, "conflict").await;
    assert_eq!(newest().await, last);
    told(&service, operator, ("POST", &format!("{path}/close"), why), 200).await;
    assert_eq!(text(&newest().await, "action"), "merchant.close");
    for sql in ["delete from audit", "update audit set actor = 'nobody'", "truncate audit"] {
        assert!(sqlx::query(sql).execute(&world.books).await.is_err(), "{sql}");
    }
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_filtered_and_come_in_pages() {
    let world = World::automine().await;
    let service = world.service().await;
    let operator = world.keys.operator.reveal();
    for name in ["one", "two", "three"] {
        printed(&world, &["merchant", "create", name]).await;
    }
    let (_, key_id) = new_key(&world, "two", &[]).await;
    let two = printed(&world, &["merchant", "show", "two"]).await;
    let two = text(&two, "merchantId");
    let actions = async |query: &str| {
        let path = format!("/v1/audit?{query}");
        let page = told(&service, operator, ("GET", &path, Value::Null), 200).await;
        let records = page["records"].as_array().unwrap().clone();
        (records, page["next"].clone())
    };
    let of_two: Vec<Value> = actions(&format!("merchantId={two}")).await.0;
    let named: Vec<&str> = of_two.iter().map(|record| text(record, "action")).collect();
    assert_eq!(named, ["key.create", "merchant.create"], "the newest first");
    assert_eq!(actions(&format!("subject={key_id}")).await.0, of_two[..1]);
    let (all, next) = actions("").await;
    assert_eq!((all.len(), next), (7, Value::Null), "with the harness's merchant and two keys");
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let (records, next) = actions(&format!("limit=3{after}")).await;
        found.extend(records);
        if next.is_null() {
            break;
        }
        after = format!("&after={next}");
    }
    assert_eq!(found, all);
    for wrong in ["limit=0", "limit=101", "merchant=x", "merchantId=x", "after=x"] {
        let asked = ("GET", &*format!("/v1/audit?{wrong}"), Value::Null);
        refused(&service, operator, asked, 400, "invalid_request").await;
    }
    assert_eq!(printed(&world, &["audit"]).await, json!(all));
    assert_eq!(printed(&world, &["audit", "--merchant", "two"]).await, json!(of_two));
    let shown = quittance(&world, &["audit", "--subject", &key_id, "--limit", "1"]).await;
    assert!(stdout(&shown).contains("key.create"), "{}", stdout(&shown));
    service.stop().await;
    world.stop().await;
}
