//! Hot wallets that come, rest and go while a service runs: `quittance wallet`, and what it does to
//! payments.

use std::{process::Output, time::Duration};

use alloy::{
    primitives::{Address, B256, hex},
    signers::{k256::elliptic_curve::rand_core::OsRng, local::PrivateKeySigner},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{process::Command, task::JoinHandle};

use crate::{
    settle_in_background,
    support::{Service, World},
};

/// Anybody's: the phrase that development tools use.
const PHRASE: &str = "test test test test test test test test test test test junk";
const MNEMONIC: (&str, &str) = ("QUITTANCE__CHAINS__LOCAL__WALLET_MNEMONIC", PHRASE);
const KEYSTORE_DIR: &str = "QUITTANCE__CHAINS__LOCAL__WALLET_KEYSTORE_DIR";
const KEYSTORE_PASSWORD: &str = "QUITTANCE__CHAINS__LOCAL__WALLET_KEYSTORE_PASSWORD";
const ALONE: (&str, &str) = ("QUITTANCE__CHAINS__LOCAL__N_PAYMENTS_PER_TRANSACTION_MAX", "1");
const TWO_PLACES: (&str, &str) = ("QUITTANCE__CHAINS__LOCAL__N_IN_FLIGHT_MAX", "2");
const IMPATIENT: (&str, &str) = ("QUITTANCE__SETTLE__WAIT_MS", "1000");

const OPEN: &str = "select count(*) from transaction where status = 'open'";
const PAID: &str =
    "select count(*) from settlement where status in ('included', 'safe', 'finalized')";
const OF_FIRST: &str = "select count(*) from transaction where wallet_id = 1";
const OF_SECOND: &str = "select count(*) from transaction where wallet_id = 2";
const OF_THIRD: &str = "select count(*) from transaction where wallet_id = 3";
const LEASED: &str =
    "select count(*) from lease where lease_name like 'wallet:%' and held_until > now()";
const SECOND_RETIRED: &str =
    "select count(*) from wallet where wallet_id = 2 and status = 'retired'";

const ONE_COIN: u128 = 1_000_000_000_000_000_000;

/// `quittance wallet` with those arguments.
async fn wallet(world: &World, settings: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quittance"))
        .arg("wallet")
        .args(arguments)
        .envs(world.environment())
        .envs(settings.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn said(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

/// The same with `--json`, which must succeed.
async fn done(world: &World, settings: &[(&str, &str)], arguments: &[&str]) -> Value {
    let output = wallet(world, settings, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
}

/// The same, which must fail with status 1 and say so.
async fn refused(world: &World, settings: &[(&str, &str)], arguments: &[&str]) -> String {
    let output = wallet(world, settings, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// Registers the account of the phrase with that index, and gives it gas money.
async fn add_of_phrase(world: &World, index: u32) -> Address {
    let index = index.to_string();
    let arguments = ["add", "--chain", "local", "--mnemonic-index", &index];
    let added = done(world, &[MNEMONIC], &arguments).await;
    assert_eq!(added["status"], "active", "{added}");
    let address: Address = added["address"].as_str().unwrap().parse().unwrap();
    world.node.set_balance(address, ONE_COIN).await;
    address
}

fn settle_many(world: &World, service: &Service, n: usize) -> Vec<JoinHandle<Option<Value>>> {
    (0..n).map(|n| settle_in_background(service, &world.payment(n % 8, 1_000))).collect()
}

async fn all_paid(asked: Vec<JoinHandle<Option<Value>>>) {
    for answer in join_all(asked).await {
        let answer = answer.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{answer}");
    }
}

/// Mines until that many settlements are paid.
async fn mine_until_paid(world: &World, n: i64) {
    for _ in 0..200 {
        if world.count(PAID).await == n {
            return;
        }
        world.node.mine(1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} of {n} settlements are paid", world.count(PAID).await);
}

async fn until_readiness(service: &Service, status: u16, told: &str) {
    let mut last = String::new();
    for _ in 0..600 {
        let answer = service.operations("/readyz").await;
        if answer.status == status && answer.body.contains(told) {
            return;
        }
        last = answer.body;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("readiness is not {status} with {told:?}: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_wallets_of_a_phrase_share_the_load_and_one_pauses() {
    let world = World::stepped().await;
    let service = world.service_with(&[MNEMONIC, ALONE, TWO_PLACES]).await;
    done(&world, &[], &["pause", "1", "--reason", "moved to the phrase"]).await;
    let second = add_of_phrase(&world, 0).await;
    let third = add_of_phrase(&world, 1).await;
    world.until(LEASED, 3).await;

    let asked = settle_many(&world, &service, 4);
    world.until(OPEN, 4).await;
    assert_eq!(world.count(OF_FIRST).await, 0, "a paused wallet signed");
    assert_eq!((world.count(OF_SECOND).await, world.count(OF_THIRD).await), (2, 2));
    mine_until_paid(&world, 4).await;
    all_paid(asked).await;

    let paused = done(&world, &[], &["pause", &second.to_string()]).await;
    assert_eq!((&paused["walletId"], &paused["status"]), (&json!(2), &json!("paused")));
    let asked = settle_many(&world, &service, 4);
    world.until(OPEN, 2).await;
    mine_until_paid(&world, 8).await;
    all_paid(asked).await;
    assert_eq!((world.count(OF_SECOND).await, world.count(OF_THIRD).await), (2, 6));

    done(&world, &[], &["resume", "2"]).await;
    let asked = settle_many(&world, &service, 4);
    world.until(OPEN, 4).await;
    let listed = done(&world, &[MNEMONIC], &["list", "--chain", "local"]).await;
    let seen: Vec<_> = listed.as_array().unwrap().iter().collect();
    assert_eq!(seen.len(), 3, "{listed}");
    assert_eq!(seen[0]["status"], "paused");
    assert_eq!(seen[0]["statusReason"], "moved to the phrase");
    for (wallet, address, next) in [(seen[1], second, 4), (seen[2], third, 8)] {
        assert_eq!(wallet["address"].as_str().unwrap().parse(), Ok(address), "{wallet}");
        assert_eq!(wallet["status"], "active", "{wallet}");
        assert_eq!((&wallet["nOpen"], &wallet["nextAccountNonce"]), (&json!(2), &json!(next)));
        assert_eq!((&wallet["hasKey"], &wallet["lease"]["isHeld"]), (&json!(true), &json!(true)));
        assert!(wallet["balance"].as_str().unwrap().starts_with("0.99"), "{wallet}");
        assert!(wallet["transactionsLeft"].as_str().unwrap().parse::<u64>().unwrap() > 100);
    }
    mine_until_paid(&world, 12).await;
    all_paid(asked).await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_wallet_finishes_retires_and_can_be_added_again() {
    let world = World::stepped().await;
    let service = world.service_with(&[MNEMONIC, ALONE]).await;
    done(&world, &[], &["pause", "1"]).await;
    let address = add_of_phrase(&world, 0).await;
    world.until(LEASED, 2).await;
    let first = settle_many(&world, &service, 1);
    world.until(OPEN, 1).await;

    let drained = done(&world, &[], &["drain", "2"]).await;
    assert_eq!((&drained["status"], &drained["nOpen"]), (&json!("draining"), &json!(1)));
    let second = settle_many(&world, &service, 1);
    world.until("select count(*) from settlement", 2).await;
    world.node.mine(1).await;
    world.until(SECOND_RETIRED, 1).await;
    all_paid(first).await;
    assert_eq!(world.count(OF_SECOND).await, 1, "a draining wallet signed");
    assert!(refused(&world, &[], &["resume", "2"]).await.contains("wallet add"));
    assert_eq!(done(&world, &[], &["drain", "2"]).await["status"], "retired");

    // A reorganization takes back what it retired with, and the pool has forgotten it.
    world.until(LEASED, 1).await;
    world.node.reorg(1, &[]).await;
    world.until(OPEN, 1).await;
    world.node.until_pending(1).await;
    mine_until_paid(&world, 1).await;
    world.until(LEASED, 1).await;
    assert_eq!(world.count(SECOND_RETIRED).await, 1);
    assert_eq!(world.count(OF_SECOND).await, 1);

    assert_eq!(add_of_phrase(&world, 0).await, address);
    world.until(OPEN, 1).await;
    world.node.mine(1).await;
    all_paid(second).await;
    assert_eq!(world.count(OF_SECOND).await, 2);
    world.check_books().await;

    // What its owner did with it while it was retired is skipped.
    assert_eq!(done(&world, &[], &["drain", "2"]).await["status"], "retired");
    world.node.set_nonce(address, 9).await;
    world.node.mine(1).await;
    let arguments = ["add", "--chain", "eip155:8453", "--address", &address.to_string()];
    assert_eq!(done(&world, &[MNEMONIC], &arguments).await["nextAccountNonce"], 9);
    let third = settle_many(&world, &service, 1);
    world.until(OPEN, 1).await;
    world.node.mine(1).await;
    all_paid(third).await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_of_a_keystore_file_works_and_a_wrong_password_stops_only_that() {
    const PASSWORD: &str = "a password of the keystore";
    let world = World::automine().await;
    let key = B256::random();
    let address = PrivateKeySigner::from_bytes(&key).unwrap().address();
    let folder = std::env::temp_dir().join(format!("quittance-keys-{}", uuid::Uuid::now_v7()));
    let keys = folder.join("keys");
    std::fs::create_dir_all(&keys).unwrap();
    let password_file = folder.join("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    let (keys_text, password_text) = (keys.to_str().unwrap(), password_file.to_str().unwrap());
    let password_variable = format!("{KEYSTORE_PASSWORD}_FILE");
    let settings = [(KEYSTORE_DIR, keys_text), (password_variable.as_str(), password_text)];
    let service = world.service_with(&settings).await;

    let address_text = address.to_string();
    let add = ["add", "--chain", "local", "--address", &address_text];
    let told = refused(&world, &settings, &add).await;
    assert!(told.contains("wallet_keystore_dir"), "{told}");
    let name = format!("UTC--2026-01-01T00-00-00Z--{}", hex::encode(address));
    PrivateKeySigner::encrypt_keystore(&keys, &mut OsRng, key, PASSWORD, Some(&name)).unwrap();
    let wrong = [(KEYSTORE_DIR, keys_text), (KEYSTORE_PASSWORD, "another password")];
    let told = refused(&world, &wrong, &add).await;
    assert!(told.contains("does not fit") && !told.contains("another password"), "{told}");
    let added = wallet(&world, &settings, &add).await;
    assert!(added.status.success(), "{}", said(&added));
    assert!(said(&added).contains(&format!("send gas money to {address} on local")));
    world.node.set_balance(address, ONE_COIN).await;

    done(&world, &[], &["pause", "1"]).await;
    let paid = service.settle(&world.payment(0, 1_000)).await;
    assert_eq!(paid["success"], true, "{paid}");
    assert_eq!(world.count(OF_SECOND).await, 1);
    let log = service.log();
    service.stop().await;
    let secrets = [hex::encode(key), PASSWORD.to_owned()];
    let listed = said(&wallet(&world, &settings, &["list"]).await);
    for secret in secrets {
        assert!(!log.contains(&secret) && !listed.contains(&secret));
    }

    done(&world, &[], &["resume", "1"]).await;
    let service = world.service_with(&wrong).await;
    let paid = service.settle(&world.payment(1, 1_000)).await;
    assert_eq!(paid["success"], true, "{paid}");
    assert_eq!((world.count(OF_FIRST).await, world.count(OF_SECOND).await), (1, 1));
    let listed = said(&wallet(&world, &wrong, &["list"]).await);
    assert!(listed.contains("in these settings") && listed.contains("does not fit"), "{listed}");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_every_wallet_rests_payments_wait_and_none_is_lost() {
    let world = World::automine().await;
    let service = world.service_with(&[IMPATIENT]).await;
    done(&world, &[], &["pause", "1", "--reason", "the safe is being moved"]).await;
    let payment = world.payment(0, 10_000);
    let answer = service.post("/settle", &payment).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.header("Retry-After").map(str::is_empty), Some(false));
    until_readiness(&service, 503, "the safe is being moved").await;
    let answer = service.post("/settle", &payment).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(world.count("select count(*) from settlement where status = 'claimed'").await, 1);
    assert_eq!(world.payee_balance().await, 0);

    assert_eq!(done(&world, &[], &["resume", "1"]).await["status"], "active");
    world.until(PAID, 1).await;
    let paid = service.settle(&payment).await;
    assert_eq!(paid["success"], true, "{paid}");
    until_readiness(&service, 200, "").await;
    assert_eq!(world.payee_balance().await, 10_000);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_ends_when_somebody_has_looked_and_what_was_used_is_skipped() {
    let world = World::automine().await;
    let service = world.service().await;
    assert_eq!(service.settle(&world.payment(0, 1_000)).await["success"], true);
    service.stop().await;
    world.node.set_nonce(world.services.chain.wallet.address, 7).await;
    // Past the safe head, which is 64 blocks behind at most.
    world.node.mine(100).await;
    let service = Service::spawn(&world, &[IMPATIENT]).await;
    world.until("select count(*) from wallet where status = 'quarantined'", 1).await;
    let payment = world.payment(1, 1_000);
    assert_eq!(service.post("/settle", &payment).await.status, 503);

    for command in ["resume", "drain"] {
        let told = refused(&world, &[], &[command, "1"]).await;
        assert!(told.contains("--i-have-looked"), "{told}");
    }
    assert!(refused(&world, &[], &["pause", "1"]).await.contains("quarantined"));
    let resumed = done(&world, &[], &["resume", "1", "--i-have-looked"]).await;
    assert_eq!((&resumed["status"], &resumed["nextAccountNonce"]), (&json!("active"), &json!(7)));
    assert!(resumed["did"].as_str().unwrap().contains("1 to 6"), "{resumed}");
    world.until(PAID, 2).await;
    assert_eq!(service.settle(&payment).await["success"], true);
    assert_eq!(world.count("select max(account_nonce) from transaction").await, 7);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_a_hot_wallet_is_refused() {
    let world = World::stepped().await;
    let add = ["add", "--chain", "local", "--mnemonic-index", "0"];
    let address = done(&world, &[MNEMONIC], &add).await["address"].as_str().unwrap().to_owned();
    let delegation = hex::decode(format!("ef0100{}", "11".repeat(20))).unwrap().into();
    let add = ["add", "--chain", "local", "--mnemonic-index", "1"];
    let other: Address = PHRASE_SECOND.parse().unwrap();
    world.node.set_code(other, &delegation).await;
    let told = refused(&world, &[MNEMONIC], &add).await;
    assert!(told.contains("EIP-7702"), "{told}");
    world.node.set_code(other, &Default::default()).await;

    world.node.set_balance(other, ONE_COIN).await;
    world.node.call("anvil_impersonateAccount", json!([other])).await;
    let transfer = json!([{ "from": other, "to": address, "value": "0x1" }]);
    world.node.call("eth_sendTransaction", transfer).await;
    let told = refused(&world, &[MNEMONIC], &add).await;
    assert!(told.contains("1 unmined"), "{told}");
    world.node.mine(1).await;
    assert_eq!(done(&world, &[MNEMONIC], &add).await["nextAccountNonce"], 1);

    // The service says the same of the wallet that its settings name.
    let configured = world.services.chain.wallet.address;
    world.node.set_code(configured, &delegation).await;
    let service = Service::spawn(&world, &[]).await;
    until_readiness(&service, 503, "").await;
    for _ in 0..200 {
        if service.log().contains("EIP-7702") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(service.log().contains("EIP-7702"), "{}", service.log());
    assert_eq!(world.count("select count(*) from wallet").await, 2);
    service.stop().await;
    world.stop().await;
}

/// The account of the phrase with index 1.
const PHRASE_SECOND: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
