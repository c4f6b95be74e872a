//! Gas budgets, and payments that are not worth their gas.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    callers::reason,
    support::{Fault, RPC_URL, Service, World},
};

const SPENT: &str = "gas_budget_exceeded";
const BELOW: &str = "below_floor_price";
/// What a coin costs: one base unit for each wei, so that floors are as large as the gas.
const WEI_FOR_WEI: &str = "1000000000000000000";

/// Neither route takes it, for that reason: what `/settle` says.
async fn refused(service: &Service, payment: &Value, why: &str) -> String {
    let settled = service.settle(payment).await;
    assert_eq!(reason(&settled), Some(why), "{settled}");
    let asked = Instant::now();
    loop {
        let verified = service.verify(payment).await;
        if reason(&verified) == Some(why) {
            break;
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{verified}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    settled["errorMessage"].as_str().unwrap().to_owned()
}

async fn paid(service: &Service, payment: &Value, what: &str) {
    let answer = service.settle(payment).await;
    assert_eq!(answer["success"], json!(true), "{what}: {answer}");
}

/// What today's gas of a merchant, or of a payer, came to.
async fn wei_spent(world: &World, of: &str) -> u128 {
    let sql = "select sum(wei)::text from gas_spent where subject like $1 and
        day = (now() at time zone 'UTC')::date";
    let wei: String = sqlx::query_scalar(sql).bind(of).fetch_one(&world.books).await.unwrap();
    wei.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_days_gas_is_what_was_posted_and_what_is_under_way() {
    let world = World::automine().await;
    let service = world.service().await;
    world.far_from_a_full_hour().await;
    let chain = world.services.chain.chain_id.to_string();
    paid(&service, &world.payment(0, 10), "no budget").await;
    world.until("select count(*) from gas_spent", 2).await;
    let one = wei_spent(&world, "merchant:%").await;
    assert_eq!(wei_spent(&world, "payer:%").await, one, "the payer bears the same");
    for (whom, payer) in [("payer", 1), ("merchant", 2)] {
        // Room for three payments at four times today's price, and no more.
        let cap = one + one * 4;
        let budget = cap.to_string();
        let set = ["--for", whom, "--gas-wei", &budget, "--chain", &chain, "--per", "day"];
        let cap_id = world.cap(&set).await;
        let mut n_paid = 0;
        let said = loop {
            let answer = service.settle(&world.payment(payer, 10)).await;
            if answer["success"] != json!(true) {
                assert_eq!(reason(&answer), Some(SPENT), "{whom}: {answer}");
                break answer["errorMessage"].as_str().unwrap().to_owned();
            }
            n_paid += 1;
            assert!(n_paid < 10, "{whom}: the budget is no wall");
        };
        assert!(n_paid > 0, "{whom}: {said}");
        assert!(said.contains(&format!("{cap} wei of gas")), "{said}");
        refused(&service, &world.payment(payer, 10), SPENT).await;
        let of_payer = format!("payer:{:#x}", world.buyer(payer).address());
        let of = if whom == "payer" { &of_payer } else { "merchant:%" };
        let spent = wei_spent(&world, of).await;
        assert!(spent <= cap, "{whom}: {spent} of {cap}");
        if whom == "payer" {
            // Other payers have budgets of their own.
            paid(&service, &world.payment(3, 10), "another payer").await;
        }
        world.pass("24 hours").await;
        paid(&service, &world.payment(payer, 10), "the next day").await;
        world.operator(&["cap", "remove", &cap_id]).await;
    }
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_holds_its_gas_until_it_is_mined() {
    let world = World::stepped().await;
    let service = world.service_with(&[("QUITTANCE__SETTLE__WAIT_MS", "2000")]).await;
    let chain = world.services.chain.chain_id.to_string();
    world
        .cap(&[
            "--for",
            "payer",
            "--gas-wei",
            "99999999999999999",
            "--chain",
            &chain,
            "--per",
            "day",
        ])
        .await;
    let answer = service.settle(&world.payment(0, 10)).await;
    assert_eq!(reason(&answer), Some("settlement_pending"), "{answer}");
    let held: String = sqlx::query_scalar("select gas_reserved_wei::text from settlement")
        .fetch_one(&world.books)
        .await
        .unwrap();
    let held: u128 = held.parse().unwrap();
    assert!(held > 0);
    // Room for what is under way and most of as much again; the zeros in its bytes make one payment
    // cheaper than another.
    let most = (held + held / 10 * 9).to_string();
    world.cap(&["--for", "payer", "--gas-wei", &most, "--chain", &chain, "--per", "day"]).await;
    let said = refused(&service, &world.payment(0, 10), SPENT).await;
    assert!(said.contains(&format!("{held} used")), "{said}");
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until("select count(*) from settlement where status = 'included'", 1).await;
    let spent = wei_spent(&world, "payer:%").await;
    assert!(spent <= held, "{spent} was paid of {held}");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_below_its_gas_is_refused_where_a_floor_is_set() {
    let world = World::automine().await;
    let service = world.service().await;
    let usdc = world.usdc();
    paid(&service, &world.payment(0, 1), "no floor").await;
    world.operator(&["floor", "set", &usdc, "--coin-price", "1"]).await;
    paid(&service, &world.payment(0, 1), "a coin that costs almost nothing").await;
    let floor = world.operator(&["floor", "set", &usdc, "--coin-price", WEI_FOR_WEI]).await;
    assert_eq!(floor["baseUnitsPerCoin"], json!(WEI_FOR_WEI));
    let said = refused(&service, &world.payment(0, 1), BELOW).await;
    let named = |said: &str| -> u64 {
        let (_, rest) = said.split_once("less than ").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let (_, at) = said.split_once("about ").unwrap();
    assert_eq!(at.split(' ').next().unwrap(), named(&said).to_string(), "{said}");
    // As many base units a wei: the largest payment is below its gas, or fits, by the price of now.
    let listed = world.operator(&["floor", "list"]).await;
    assert_eq!(listed["floors"], json!([floor]));
    world.operator(&["floor", "remove", &usdc]).await;
    paid(&service, &world.payment(0, 1), "no floor again").await;
    let changes = "select count(*) from audit where action in ('floor.set', 'floor.remove')";
    assert_eq!(world.count(changes).await, 3);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_is_the_least_that_is_taken() {
    let world = World::stepped().await;
    let service = world.service_with(&[("QUITTANCE__SETTLE__WAIT_MS", "2000")]).await;
    // A block a price: nothing moves it while nothing is mined. One base unit for a million million wei.
    world.operator(&["floor", "set", &world.usdc(), "--coin-price", "1000000"]).await;
    let said = refused(&service, &world.payment(0, 0), BELOW).await;
    let (_, rest) = said.split_once("less than ").unwrap();
    let least: u64 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(least > 0, "{said}");
    if least > 1 {
        refused(&service, &world.payment(0, least - 1), BELOW).await;
    }
    let verified = service.verify(&world.payment(0, least)).await;
    assert_eq!(verified["isValid"], json!(true), "{verified}");
    let answer = service.settle(&world.payment(0, least)).await;
    assert_eq!(reason(&answer), Some("settlement_pending"), "{answer}");
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_gas_prices_nothing_is_promised_that_they_decide() {
    let world = World::automine().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    proxy.set("eth_feeHistory", Fault::DropBefore);
    world.operator(&["floor", "set", &world.usdc(), "--coin-price", "1"]).await;
    for path in ["/settle", "/verify"] {
        let asked = Instant::now();
        loop {
            let answer = service.post(path, &world.payment(0, 10)).await;
            if answer.status == 503 {
                break;
            }
            assert!(
                path == "/verify" && asked.elapsed() < Duration::from_secs(5),
                "{}",
                answer.body
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(world.count("select count(*) from settlement").await, 0);
    proxy.heal();
    paid(&service, &world.payment(0, 10), "prices again").await;
    service.stop().await;
    world.stop().await;
}
