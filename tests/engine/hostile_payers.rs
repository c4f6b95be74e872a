//! Payers that turn into contracts once they were verified, and burn what gas they are given.
//! Scenarios 25 to 27 of the settlement-engine reference.

use alloy::primitives::{Address, Bytes};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    DEPLOY_SETTLER, N_IN_FLIGHT_MAX, answers, assert_all_paid, behind_proxy, end,
    in_one_transaction, settle_in_background,
    support::{Service, World},
};

/// Where the payer's delegate is.
const DELEGATE: Address = Address::repeat_byte(0xde);
/// The buyer that turns hostile.
const HOSTILE: usize = 7;
const PLAIN: Bytes = Bytes::new();
const PAID: &str = "select count(*) from settlement where status = 'included'";
const REQUEUED: &str = "select count(*) from event where detail like 'mined without%'";
const WAITING: &str = "select count(*) from settlement where status = 'claimed' and amount <> 7777";
const UNANSWERED: &str = "select count(*) from attempt where sent_answer is null";
/// What all transactions used that carried the hostile payment.
const WASTED: &str = "select sum(gas_used)::bigint from transaction where transaction_id in (
    select transaction_id from transaction_item join settlement using (settlement_id)
    where settlement.amount = 7777)";

/// The worst of all wallets (contracts/src/local/GasBurner.sol).
fn burner() -> Bytes {
    let artifact = include_str!("../../contracts/artifacts/GasBurner.json");
    let artifact: Value = serde_json::from_str(artifact).unwrap();
    artifact["deployedBytecode"].as_str().unwrap().parse().unwrap()
}

/// A wallet that approves of everything while nobody sends it (`tx.origin` is zero in a plain
/// `eth_call`), and burns all gas in a transaction:
/// `origin; push 18; jumpi; return 0x1626ba7e padded (ERC-1271); jumpdest; invalid`.
fn sly_burner() -> Bytes {
    "0x32601257631626ba7e60e01b5f5260205ff35bfe".parse().unwrap()
}

/// Has the hostile payer's account delegate (EIP-7702).
async fn delegate(world: &World, code: &Bytes) {
    world.node.set_code(DELEGATE, code).await;
    let designator: Vec<u8> = [&[0xef, 0x01, 0x00], DELEGATE.as_slice()].concat();
    world.node.set_code(world.services.chain.payers[HOSTILE].address, &designator.into()).await;
}

async fn undelegate(world: &World) {
    world.node.set_code(world.services.chain.payers[HOSTILE].address, &PLAIN).await;
}

/// Nine honest payments and a hostile one among them.
fn ten(world: &World) -> Vec<Value> {
    (0..10)
        .map(|n| match n {
            4 => world.payment(HOSTILE, 7_777),
            n => world.payment(n % HOSTILE, 1_000),
        })
        .collect()
}

/// The callers of the honest payments of [`ten`], and that of the other.
fn apart(
    mut asked: Vec<JoinHandle<Option<Value>>>,
) -> (Vec<JoinHandle<Option<Value>>>, JoinHandle<Option<Value>>) {
    let hostile = asked.remove(4);
    (asked, hostile)
}

/// A hot wallet that stops signing for the hostile payment pays others all the same; the payment
/// fails when its time is over.
async fn let_expire(world: &World, service: &Service, hostile: JoinHandle<Option<Value>>) {
    let n_paid = world.count(PAID).await;
    let fence = settle_in_background(service, &world.payment(0, 1_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![fence]).await);
    world.until(PAID, n_paid + 1).await;
    world.node.increase_time(3_600).await;
    world.node.mine(1).await;
    let told = hostile.await.unwrap().expect("an answer");
    assert_eq!(
        told["errorReason"], "invalid_exact_evm_payload_authorization_valid_before",
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_settler_a_burner_costs_its_cap_and_the_others_are_paid_at_once() {
    let world = World::stepped().await;
    world.deploy_settler().await;
    let (proxy, service) = behind_proxy(&world, &[(N_IN_FLIGHT_MAX, "1")]).await;
    let asked = in_one_transaction(&world, &service, &ten(&world)).await;
    delegate(&world, &burner()).await;
    world.node.mine(1).await;
    let (honest, hostile) = apart(asked);
    assert_all_paid(&answers(honest).await);
    // The opener, and nine of ten in the very same block.
    assert_eq!(world.count(PAID).await, 10);
    assert_eq!(world.count("select count(*) from transaction where status = 'mined'").await, 2);
    // Nine payments of 60,000, the cap of one item, and what the batch costs itself.
    let wasted = world.count(WASTED).await;
    assert!(wasted <= 9 * 60_000 + 120_000 + 60_000, "{wasted}");
    // While it is a contract, it is not signed for again.
    let_expire(&world, &service, hostile).await;
    assert_eq!(world.count(WASTED).await, wasted);
    assert_eq!(world.payee_balance().await, 10_001);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_multicall3_a_burner_takes_the_batch_and_the_others_are_paid_with_the_next_block() {
    let world = World::stepped().await;
    let settings = [(N_IN_FLIGHT_MAX, "1"), (DEPLOY_SETTLER, "false")];
    let (proxy, service) = behind_proxy(&world, &settings).await;
    let asked = in_one_transaction(&world, &service, &ten(&world)).await;
    delegate(&world, &burner()).await;
    world.node.mine(1).await;
    world.until(REQUEUED, 10).await;
    // With one place, the nine go in halves, one after the other.
    for n_paid in [6, 10] {
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        world.until(PAID, n_paid).await;
    }
    let (honest, hostile) = apart(asked);
    assert_all_paid(&answers(honest).await);
    // The limit of one batch of ten is lost, once.
    let wasted = world.count(WASTED).await;
    assert!(wasted <= 1_600_000, "{wasted}");
    let_expire(&world, &service, hostile).await;
    assert_eq!(world.count(WASTED).await, wasted);
    assert_eq!(world.payee_balance().await, 10_001);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burner_that_passes_every_trial_is_halved_out_of_its_company() {
    let world = World::stepped().await;
    let settings = [(N_IN_FLIGHT_MAX, "8"), (DEPLOY_SETTLER, "false")];
    let (proxy, service) = behind_proxy(&world, &settings).await;
    let mut openers = Vec::new();
    for n in 1..=8 {
        openers.push(settle_in_background(&service, &world.payment(0, 1)));
        world.node.until_pending(n).await;
    }
    let asked: Vec<_> =
        ten(&world).iter().map(|payment| settle_in_background(&service, payment)).collect();
    world.until("select count(*) from settlement where status = 'claimed'", 10).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(openers).await);
    world.until(WAITING, 0).await;
    delegate(&world, &sly_burner()).await;
    // Ten, five, three, two, one: at the fifth block it is alone.
    let mut n_blocks = 0;
    while world.count(PAID).await < 8 + 9 {
        // All of the honest are on their way, whatever company they are in.
        world.until(WAITING, 0).await;
        world.until(UNANSWERED, 0).await;
        world.node.mine(1).await;
        let head = i64::try_from(world.node.block_number().await).unwrap();
        world.until("select max(number) from chain_head", head).await;
        n_blocks += 1;
    }
    assert!(n_blocks <= 5, "the honest waited {n_blocks} blocks");
    let (honest, hostile) = apart(asked);
    assert_all_paid(&answers(honest).await);
    // It lies to every look, so it is believed three times more, alone.
    let spent = "select count(*) from settlement
        where amount = 7777 and n_alone = 3 and status = 'claimed'";
    while world.count(spent).await == 0 {
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        let head = i64::try_from(world.node.block_number().await).unwrap();
        world.until("select max(number) from chain_head", head).await;
    }
    // With ten, five, three and two beside it, at no more than 150,000 gas an item, and alone.
    let wasted = world.count(WASTED).await;
    assert!(wasted <= 20 * 150_000 + 3 * 200_000, "{wasted}");
    let_expire(&world, &service, hostile).await;
    assert_eq!(world.payee_balance().await, 9_000 + 8 + 1_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_burns_gas_alone_three_times_costs_nothing_more() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let hostile = settle_in_background(&service, &world.payment(HOSTILE, 7_777));
    for n in 1..=3 {
        // A plain account whenever we look, and a burner whenever a block is built.
        world.node.until_pending(1).await;
        delegate(&world, &burner()).await;
        world.node.mine(1).await;
        world.until(REQUEUED, n).await;
        undelegate(&world).await;
    }
    let wasted = world.count(WASTED).await;
    assert!(wasted <= 3 * 200_000, "{wasted}");
    // Payable as it looks, it is not tried a fourth time.
    let n_tries = "select count(*) from transaction_item join settlement using (settlement_id)
        where amount = 7777";
    let_expire(&world, &service, hostile).await;
    assert_eq!(world.count(n_tries).await, 3);
    assert_eq!(world.count(WASTED).await, wasted);
    end(world, service, &[&proxy]).await;
}
