//! One of a chain's endpoints dies, hangs, lags or is of another chain, and payments go on.

use std::{path::PathBuf, process::Stdio, time::Duration};

use alloy::eips::BlockNumberOrTag;
use quittance::{
    app::dev::{ChainRequest, LocalChain},
    chain::{Chain, ChainOptions},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{process::Command, time::Instant};

use crate::support::{Fault, Node, Proxy, Service, World, now};

const RPC_URL: &str = "QUITTANCE__CHAINS__LOCAL__RPC_URL";
const RPC_TIMEOUT_MS: &str = "QUITTANCE__CHAINS__LOCAL__RPC_TIMEOUT_MS";
const N_SETTLEMENTS: &str = "select count(*) from settlement";
const SECRET: &str = "secret-in-the-url";

/// The URL of a proxy as providers hand them out, with a key in it.
fn keyed(proxy: &Proxy) -> String {
    format!("{}/v2/{SECRET}?key={SECRET}", proxy.url)
}

fn both(first: &Proxy, second: &Proxy) -> String {
    format!("{}, {}", keyed(first), keyed(second))
}

fn two_proxies(world: &World) -> (Proxy, Proxy) {
    let url = &world.services.chain.rpc_url;
    (Proxy::before(url), Proxy::before(url))
}

/// A client of the world's chain through these proxies.
fn client(world: &World, proxies: &[&Proxy], head_age_max: Option<Duration>) -> Chain {
    Chain::new(&ChainOptions {
        chain_id: world.services.chain.chain_id,
        rpc_urls: proxies.iter().map(|proxy| SecretString::from(keyed(proxy))).collect(),
        timeout: Duration::from_secs(1),
        head_age_max,
        clock: now,
    })
    .unwrap()
}

/// Another chain, far ahead, so that nobody takes it for a node that lags.
async fn other_chain() -> LocalChain {
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("anvil-scripts");
    let request = ChainRequest { chain_id: Some(84_532), ..ChainRequest::default() };
    let other = LocalChain::start(&scripts, &request).await.unwrap();
    Node::new(&other.rpc_url).mine(50).await;
    other
}

/// Stops a service whose endpoints have keys in their URLs, which it must not have told.
async fn stop(service: Service) {
    let log = service.log();
    assert!(!log.contains(SECRET), "{log}");
    service.stop().await;
}

/// The newest block now, for a proxy that goes on answering it.
async fn frozen(world: &World) -> Value {
    world.node.call("eth_getBlockByNumber", json!(["latest", false])).await
}

fn answering(result: &Value) -> Fault {
    Fault::Answer(Box::leak(result.to_string().into_boxed_str()))
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_go_on_when_the_first_endpoint_dies() {
    let world = World::automine().await;
    let (first, second) = two_proxies(&world);
    let settings = [(RPC_URL, &*both(&first, &second)), (RPC_TIMEOUT_MS, "1000")];
    let faults = [Fault::DropBefore, Fault::BlackHole, Fault::WebPage, Fault::RateLimited];
    for (n, fault) in faults.into_iter().enumerate() {
        let service = world.service_with(&settings).await;
        first.set_all(fault);
        let asked_at = Instant::now();
        let answer = service.settle(&world.payment(n, 1_000)).await;
        assert_eq!(answer["success"], true, "{fault:?}: {answer}\n{}", service.log());
        assert!(asked_at.elapsed() < Duration::from_secs(8), "{fault:?}: {:?}", asked_at.elapsed());
        assert_eq!(second.sent().len(), n + 1, "{fault:?}");
        assert_eq!(service.operations("/readyz").await.status, 200);
        let metrics = service.operations("/metrics").await.body;
        let unfit = "quittance_rpc_endpoint_fit{chain=\"eip155:8453\",endpoint=\"1\"} 0";
        assert!(metrics.contains(unfit), "{fault:?}: {metrics}");
        stop(service).await;
        first.heal();
    }
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_with_one_endpoint_of_two() {
    let world = World::automine().await;
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    for (n, urls) in [
        format!("http://127.0.0.1:1/{SECRET}, {}", keyed(&proxy)),
        format!("{} ,http://127.0.0.1:1/{SECRET}", keyed(&proxy)),
    ]
    .iter()
    .enumerate()
    {
        let everything = ("QUITTANCE__LOG__FILTER", "trace");
        let service = world.service_with(&[(RPC_URL, urls), everything]).await;
        let answer = service.settle(&world.payment(n, 1_000)).await;
        assert_eq!(answer["success"], true, "{answer}");
        assert_eq!(proxy.sent().len(), n + 1);
        stop(service).await;
    }
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_does_not_hold_the_wallet() {
    let world = World::automine().await;
    let (first, second) = two_proxies(&world);
    // The timeout of a call is five seconds.
    let service = world.service_with(&[(RPC_URL, &both(&first, &second))]).await;
    first.set("eth_sendRawTransaction", Fault::BlackHole);
    let asked_at = Instant::now();
    for n in 0..2 {
        let answer = service.settle(&world.payment(n, 1_000)).await;
        assert_eq!(answer["success"], true, "{answer}");
    }
    assert!(asked_at.elapsed() < Duration::from_secs(4), "{:?}", asked_at.elapsed());
    assert_eq!(first.sent(), second.sent(), "each endpoint is handed the same bytes");
    world.until("select count(*) from attempt where sent_answer = 'accepted'", 2).await;
    stop(service).await;
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_another_chain_is_never_sent_a_transaction() {
    let world = World::automine().await;
    let other = other_chain().await;
    let (right, wrong) =
        (Proxy::before(&world.services.chain.rpc_url), Proxy::before(&other.rpc_url));
    for (n, urls) in [both(&wrong, &right), both(&right, &wrong)].iter().enumerate() {
        let service = world.service_with(&[(RPC_URL, urls)]).await;
        for _ in 0..3 {
            let answer = service.settle(&world.payment(n, 1_000)).await;
            assert_eq!(answer["success"], true, "{answer}");
        }
        let log = service.log();
        assert_eq!(log.matches("is of eip155:84532, and is not used").count(), 1, "{log}");
        stop(service).await;
    }
    assert_eq!(wrong.sent(), Vec::<String>::new());
    assert_eq!(right.sent().len(), 6);
    world.check_books().await;
    other.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_turns_to_another_chain_is_left_for_the_next() {
    let world = World::automine().await;
    let other = other_chain().await;
    let (first, second) = two_proxies(&world);
    let service = world.service_with(&[(RPC_URL, &both(&first, &second))]).await;
    assert_eq!(service.settle(&world.payment(0, 1_000)).await["success"], true);
    first.retarget(&other.rpc_url);
    let noticed = async {
        while !service.log().contains("is of eip155:84532, and is not used") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), noticed).await.unwrap();
    let n_sent = first.sent().len();
    assert_eq!(service.settle(&world.payment(1, 1_000)).await["success"], true);
    assert_eq!(first.sent().len(), n_sent);
    assert_eq!(world.count("select count(*) from ledger_entry where kind = 'reverse'").await, 0);
    stop(service).await;
    world.check_books().await;
    other.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_endpoint_nothing_is_judged_and_nothing_claimed() {
    let world = World::automine().await;
    let (first, second) = two_proxies(&world);
    let settings = [(RPC_URL, &*both(&first, &second)), (RPC_TIMEOUT_MS, "300")];
    let service = world.service_with(&settings).await;
    let payment = world.payment(0, 1_000);
    first.set_all(Fault::DropBefore);
    second.set_all(Fault::BlackHole);
    for path in ["/verify", "/settle", "/verify", "/settle"] {
        let answer = service.post(path, &payment).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
        assert!(!answer.body.contains("endpoint"), "{}", answer.body);
    }
    assert_eq!(world.count(N_SETTLEMENTS).await, 0);
    // Either of them is enough.
    second.heal();
    assert_eq!(service.settle(&payment).await["success"], true);
    stop(service).await;
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_costs_one_timeout_once() {
    let world = World::automine().await;
    let (first, second) = two_proxies(&world);
    let chain = client(&world, &[&first, &second], None);
    chain.survey().await;
    first.set_all(Fault::BlackHole);
    let mut took = Vec::new();
    for _ in 0..5 {
        let asked_at = Instant::now();
        chain.latest_block().await.unwrap();
        took.push(asked_at.elapsed());
    }
    assert!(took[0] >= Duration::from_secs(1), "the first one is asked first: {took:?}");
    assert!(took[1..].iter().all(|took| *took < Duration::from_millis(500)), "{took:?}");
    // It comes back when a survey finds it well.
    first.heal();
    second.set_all(Fault::DropBefore);
    let found = async {
        loop {
            chain.survey().await;
            if chain
                .account_nonce_at(world.services.chain.payee.address, BlockNumberOrTag::Latest)
                .await
                .is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_lags_is_left_until_it_catches_up() {
    let world = World::stepped().await;
    let (first, second) = two_proxies(&world);
    let chain = client(&world, &[&first, &second], None);
    chain.survey().await;
    let old = frozen(&world).await;
    first.set("eth_getBlockByNumber", answering(&old));
    world.node.mine(4).await;
    let newest = world.node.block_number().await;
    let until_newest = async |what: &str| {
        for _ in 0..100 {
            chain.survey().await;
            if chain.latest_block().await.unwrap().number == newest {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}");
    };
    chain.survey().await;
    let lagging = chain.latest_block().await.unwrap().number;
    assert_eq!(lagging + 4, newest, "a short lag is let pass");
    until_newest("nobody noticed the lag").await;
    first.heal();
    chain.survey().await;
    second.set("eth_getBlockByNumber", answering(&old));
    assert_eq!(chain.latest_block().await.unwrap().number, newest, "the first one is back");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_newest_block_is_old_is_left_for_the_next() {
    let world = World::automine().await;
    let (first, second) = two_proxies(&world);
    let number = world.node.block_number().await;
    let mut old = frozen(&world).await;
    old["timestamp"] = json!(format!("{:#x}", now().seconds() - 70));
    old["number"] = json!("0x1");
    first.set("eth_getBlockByNumber", answering(&old));
    let minute = Some(Duration::from_secs(60));
    for (head_age_max, expected) in [(minute, number), (None, 1)] {
        world.node.mine(1).await;
        let chain = client(&world, &[&first, &second], head_age_max);
        assert_eq!(chain.latest_block().await.unwrap().number, 1, "nothing is known yet");
        let found = chain.latest_block().await.unwrap().number;
        assert!(if expected == 1 { found == 1 } else { found > expected }, "{found}");
    }
    // A chain that stands still is read all the same.
    second.set("eth_getBlockByNumber", answering(&old));
    let chain = client(&world, &[&first, &second], minute);
    for _ in 0..3 {
        assert_eq!(chain.latest_block().await.unwrap().number, 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_nonce_is_agreed_by_all_or_unknown() {
    let world = World::automine().await;
    let (first, second) = two_proxies(&world);
    let chain = client(&world, &[&first, &second], None);
    let wallet = world.services.chain.wallet.address;
    let nonce = world.node.account_nonce(wallet).await;
    let agreed = async || chain.account_nonce_agreed(wallet, BlockNumberOrTag::Latest).await;
    assert_eq!(agreed().await.unwrap(), Some(nonce));
    first.set("eth_getTransactionCount", Fault::Answer("\"0x7777\""));
    assert_eq!(agreed().await.unwrap(), None, "they differ");
    first.set("eth_getTransactionCount", Fault::DropBefore);
    assert_eq!(agreed().await.unwrap(), None, "one did not answer");
    assert_eq!(agreed().await.unwrap(), None, "and is asked all the same");
    first.heal();
    assert_eq!(agreed().await.unwrap(), Some(nonce));
    first.set("eth_getTransactionCount", Fault::DropBefore);
    second.set("eth_getTransactionCount", Fault::DropBefore);
    let error = agreed().await.unwrap_err().to_string();
    assert!(error.ends_with("on eip155:8453, endpoint 1 of 2"), "{error}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_receipts_and_codes_tell_what_the_engine_needs() {
    let world = World::automine().await;
    let (first, second) = two_proxies(&world);
    let service = world.service().await;
    let paid = service.settle(&world.payment(0, 1_000)).await;
    let chain = client(&world, &[&first, &second], None);
    let receipt = chain.receipt(paid["transaction"].as_str().unwrap().parse().unwrap()).await;
    let receipt = receipt.unwrap().unwrap();
    assert!((50_000..200_000).contains(&receipt.gas_used), "{receipt:?}");
    assert!(receipt.l1_fee_wei.is_zero() && !receipt.fee_wei.is_zero(), "{receipt:?}");
    let block = chain.latest_block().await.unwrap();
    assert!(block.base_fee_wei.is_some_and(|fee| fee > 0), "{block:?}");
    let local = &world.services.chain;
    let usdc = chain.code(local.usdc).await.unwrap();
    assert!(!usdc.is_empty());
    assert!(chain.code(local.payee.address).await.unwrap().is_empty());
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_lists_every_endpoint_with_what_is_wrong() {
    let world = World::automine().await;
    let other = other_chain().await;
    let (right, wrong) =
        (Proxy::before(&world.services.chain.rpc_url), Proxy::before(&other.rpc_url));
    let lagging = Proxy::before(&world.services.chain.rpc_url);
    lagging.set("eth_getBlockByNumber", answering(&frozen(&world).await));
    world.node.mine(9).await;
    let dead = format!("http://127.0.0.1:1/{SECRET}");
    let urls = [keyed(&right), keyed(&wrong), dead, keyed(&lagging)].join(" , ");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_quittance"));
    doctor.args(["doctor", "--json"]).envs(world.environment()).env(RPC_URL, urls);
    let output = doctor.stdin(Stdio::null()).output().await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for told in [&told, &String::from_utf8(output.stderr).unwrap()] {
        assert!(!told.contains(SECRET), "{told}");
    }
    let findings: Value = serde_json::from_str(&told).unwrap();
    for (endpoint, is_well, detail) in [
        (1, true, "eip155:8453 at block"),
        (2, false, "the endpoint is of eip155:84532"),
        (3, false, "endpoint 3 of 4"),
        (4, false, "9 blocks behind another endpoint"),
    ] {
        let subject = format!("chains.local.endpoint.{endpoint}");
        let mut all = findings.as_array().unwrap().iter();
        let finding = all.find(|finding| finding["subject"] == subject);
        let finding = finding.unwrap_or_else(|| panic!("{subject} is missing: {findings}"));
        assert_eq!(finding["ok"], is_well, "{finding}");
        assert!(finding["detail"].as_str().unwrap().contains(detail), "{finding}");
    }
    other.stop().await.unwrap();
    world.stop().await;
}
