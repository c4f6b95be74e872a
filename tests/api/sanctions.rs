//! The sanctions file: what it forbids, how it is replaced while the service runs, and what happens when
//! it cannot be.

use std::{io::Write as _, path::PathBuf, process::Stdio, time::Duration};

use alloy::primitives::Address;
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    callers::{quittance, quittance_with, reason, stderr, stdout},
    payments::AMOUNT,
    support::{Service, World, now},
};

const DENIED: &str = "address_denied";
const FILE: &str = "QUITTANCE__SANCTIONS__PATH";
const POLL: (&str, &str) = ("QUITTANCE__SANCTIONS__POLL_SECONDS", "1");

/// A file of sanctions in a folder of its own.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("quittance-list-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder.join("sanctions.txt"))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Puts a file in its place, as a careful program does.
    fn replace(&self, content: &str) {
        let beside = self.0.with_extension("new");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(beside, &self.0).unwrap();
    }

    fn remove(&self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// What `quittance sanctions seal` makes of addresses.
async fn sealed(version: &str, date: Option<&str>, addresses: &[Address]) -> String {
    let mut seal = Command::new(env!("CARGO_BIN_EXE_quittance"));
    seal.args(["sanctions", "seal", "--source", "a test", "--list-version", version]);
    seal.args(date.iter().flat_map(|date| ["--date", date]));
    let mut seal =
        seal.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let lines: String = addresses.iter().map(|address| format!("{address} # a thief\n")).collect();
    seal.stdin.take().unwrap().write_all(lines.as_bytes()).await.unwrap();
    let output = seal.wait_with_output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

async fn metric(service: &Service, name: &str) -> f64 {
    let metrics = service.operations("/metrics").await.body;
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in {metrics}"))
}

/// Waits until a metric is `expected`.
async fn until_metric(service: &Service, name: &str, expected: f64) {
    for _ in 0..500 {
        if (metric(service, name).await - expected).abs() < 0.5 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} is {}, not {expected}:\n{}", metric(service, name).await, service.log());
}

const N_ADDRESSES: &str = "quittance_sanctions_addresses";
const N_FAILURES: &str = "quittance_sanctions_reload_failures_total";

/// Both routes judge a fresh payment of the n-th buyer so.
async fn assert_judged(world: &World, service: &Service, n: usize, expected: Option<&str>) {
    let payment = world.payment(n, AMOUNT);
    let verified = service.verify(&payment).await;
    assert_eq!(reason(&verified), expected, "buyer {n}: {verified}");
    let settled = service.settle(&payment).await;
    assert_eq!(reason(&settled), expected, "buyer {n}: {settled}");
    if expected.is_some() {
        assert_eq!(settled["errorMessage"], "the operator does not allow this payer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_forbids_whom_it_names_and_is_replaced_while_the_service_runs() {
    let world = World::automine().await;
    let buyers: Vec<Address> =
        world.services.chain.payers.iter().map(|payer| payer.address).collect();
    let file = File::new();
    file.replace(&sealed("one", None, &buyers[..1]).await);
    let service = world.service_with(&[(FILE, file.path()), POLL]).await;
    assert_judged(&world, &service, 0, Some(DENIED)).await;
    assert_judged(&world, &service, 1, None).await;

    file.replace(&sealed("two", None, &buyers[1..3]).await);
    until_metric(&service, N_ADDRESSES, 2.0).await;
    assert_judged(&world, &service, 0, None).await;
    assert_judged(&world, &service, 1, Some(DENIED)).await;
    assert_judged(&world, &service, 2, Some(DENIED)).await;

    let recorded = "select count(*) from list_refusal where list = 'sanctions-file'";
    world.until(recorded, 6).await;
    for (version, n) in [("one", 2), ("two", 4)] {
        let rows =
            "select count(*) from list_refusal where list = 'sanctions-file' and version = $1";
        let rows: i64 =
            sqlx::query_scalar(rows).bind(version).fetch_one(&world.books).await.unwrap();
        assert_eq!(rows, n, "by version {version}");
    }
    world.until("select count(*) from audit where action like 'sanctions.%'", 2).await;
    let audited = sqlx::query(
        "select action, actor_kind, before, after from audit where action like 'sanctions.%'
         order by audit_id",
    );
    let audited = audited.fetch_all(&world.books).await.unwrap();
    let json_of = |n: usize, column: &str| -> Value {
        serde_json::from_str(&audited[n].get::<String, _>(column)).unwrap()
    };
    assert_eq!(audited[0].get::<String, _>("action"), "sanctions.load");
    assert_eq!(audited[1].get::<String, _>("action"), "sanctions.reload");
    assert_eq!(audited[1].get::<String, _>("actor_kind"), "service");
    let (before, after) = (json_of(1, "before"), json_of(1, "after"));
    assert_eq!(json_of(0, "after"), before);
    assert_eq!((&before["version"], &before["addresses"]), (&json!("one"), &json!(1)));
    assert_eq!((&after["version"], &after["addresses"]), (&json!("two"), &json!(2)));
    assert_ne!(before["sha256"], after["sha256"]);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_changes_nothing_and_is_told_once() {
    let world = World::automine().await;
    let buyers: Vec<Address> =
        world.services.chain.payers.iter().map(|payer| payer.address).collect();
    let file = File::new();
    let good = sealed("one", None, &buyers[..1]).await;
    file.replace(&good);
    let service = world.service_with(&[(FILE, file.path()), POLL]).await;
    let next = sealed("two", None, &buyers[1..3]).await;
    let other_digit = next.replace("0x", "0X");
    let ills = [&next[..next.len() - 10], &other_digit, "", "nonsense"];
    for (n, ill) in (1_u32..).zip(ills) {
        file.replace(ill);
        until_metric(&service, N_FAILURES, f64::from(n)).await;
        assert_judged(&world, &service, 0, Some(DENIED)).await;
        assert_judged(&world, &service, 1, None).await;
    }
    file.remove();
    until_metric(&service, N_FAILURES, 5.0).await;
    // It is looked at again and again, and nothing new is to be seen.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_judged(&world, &service, 0, Some(DENIED)).await;
    let told = service.log().matches("the sanctions file cannot be used").count();
    assert_eq!((told, metric(&service, N_FAILURES).await), (5, 5.0), "{}", service.log());
    // Written bit by bit, as a careless program does.
    let mut slowly = std::fs::File::create(&file.0).unwrap();
    for part in next.as_bytes().chunks(next.len() / 2 + 1) {
        slowly.write_all(part).unwrap();
        slowly.sync_all().unwrap();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    until_metric(&service, N_ADDRESSES, 2.0).await;
    assert_judged(&world, &service, 0, None).await;
    assert_judged(&world, &service, 1, Some(DENIED)).await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_list_is_told_and_stops_payments_only_if_the_operator_says_so() {
    let world = World::automine().await;
    let file = File::new();
    let hours_ago = |hours: u64| {
        quittance::domain::UnixTime::from_seconds(now().seconds() - hours * 3_600).to_rfc3339()
    };
    let payer = world.services.chain.payers[0].address;
    let told = "older than it may be";
    for (hours, fails_when_stale) in [(47, "true"), (49, "false"), (49, "true")] {
        file.replace(&sealed("old", Some(&hours_ago(hours)), &[payer]).await);
        let stale = [("QUITTANCE__SANCTIONS__FAIL_WHEN_STALE", fails_when_stale)];
        let settings = [&[(FILE, file.path()), POLL][..], &stale].concat();
        let service = Service::spawn(&world, &settings).await;
        let is_old = hours > 48;
        let is_stopped = is_old && fails_when_stale == "true";
        // The chain's own readiness comes a moment after the start.
        let mut ready = service.operations("/readyz").await;
        for _ in 0..500 {
            let others_well = !ready.body.contains("eip155");
            if others_well {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            ready = service.operations("/readyz").await;
        }
        assert_eq!(ready.body.contains(told), is_stopped, "{hours}: {}", ready.body);
        assert_eq!(ready.status, if is_stopped { 503 } else { 200 });
        let age = metric(&service, "quittance_sanctions_age_seconds").await;
        let expected = f64::from(u32::try_from(hours * 3_600).unwrap());
        assert!((age - expected).abs() < 60.0, "{age}");
        assert_eq!(service.log().matches("stays in force").count(), usize::from(is_old));
        for path in ["/verify", "/settle"] {
            let answer = service.post(path, &world.payment(0, AMOUNT)).await;
            assert_eq!(reason(&answer.json()), Some(DENIED), "{}", answer.body);
            let answer = service.post(path, &world.payment(1, AMOUNT)).await;
            assert_eq!(answer.status, if is_stopped { 503 } else { 200 }, "{}", answer.body);
        }
        let doctor = world.doctor(&settings).await;
        assert_eq!(doctor.contains("ok    sanctions"), !is_old, "{doctor}");
        service.stop().await;
    }
    world.stop().await;
}

impl World {
    /// What `quittance doctor` says with those settings besides.
    async fn doctor(&self, settings: &[(&'static str, &str)]) -> String {
        let mut environment = self.environment();
        environment.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
        stdout(&quittance_with(&environment, &["doctor"]).await).to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_to_have_a_list_does_not_start_without_one() {
    let world = World::automine().await;
    let file = File::new();
    let check = |told: &'static str| {
        let (world, file) = (&world, &file);
        async move {
            let mut settings = world.environment();
            settings.push((FILE, file.path().to_owned()));
            let ended = quittance_with(&settings, &["serve"]).await;
            assert_eq!(ended.status.code(), Some(1), "{told}");
            assert!(stderr(&ended).contains(told), "{}", stderr(&ended));
            assert!(stderr(&ended).contains(file.path()), "{}", stderr(&ended));
            let doctor = world.doctor(&[(FILE, file.path())]).await;
            assert!(doctor.contains("FAIL  sanctions"), "{doctor}");
            let checked = quittance(world, &["sanctions", "check", file.path()]).await;
            assert_eq!(checked.status.code(), Some(1), "{told}");
            assert!(stderr(&checked).contains(told), "{}", stderr(&checked));
        }
    };
    check("No such file").await;
    let good = sealed("one", Some("2026-07-01T12:00:00Z"), &[Address::repeat_byte(1)]).await;
    file.replace(&good[..good.len() - 1]);
    check("checksum").await;
    file.replace("nonsense");
    check("first line").await;
    file.replace(&good);
    let checked = quittance_with(&[], &["sanctions", "check", file.path(), "--json"]).await;
    let told: Value = serde_json::from_str(stdout(&checked)).unwrap();
    assert_eq!((&told["version"], &told["addresses"]), (&json!("one"), &json!(1)));
    assert_eq!(told["date"], "2026-07-01T12:00:00Z");
    world.stop().await;
}
