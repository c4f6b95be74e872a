//! A wallet runs out of what gas is paid with. Scenario 16 of the settlement-engine reference.

use std::time::Duration;

use crate::{
    RPC_URL, answers, assert_all_paid, behind_proxy, end, settle_in_background,
    support::{WALLET_MNEMONIC, World},
};

const CLAIMED: &str = "select count(*) from settlement where status = 'claimed'";
const OPEN: &str = "select count(*) from transaction where status = 'open'";
const FUNDS_WEI: u128 = 10_u128.pow(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_without_money_signs_nothing_keeps_what_is_open_and_recovers() {
    let world = World::stepped().await;
    let (proxy, service) = behind_proxy(&world, &[]).await;
    let wallet = world.services.chain.wallet.address;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.set_balance(wallet, 0).await;
    // The pool evicts what nobody can pay for.
    world.node.mine(1).await;
    world.until("select count(*) from attempt where sent_answer = 'insufficient funds'", 1).await;
    let second = settle_in_background(&service, &world.payment(1, 10_000));
    world.until(CLAIMED, 1).await;
    // No wallet can pay, and whoever balances load is told, with the wallet that is short.
    let told = async {
        loop {
            let answer = service.operations("/readyz").await;
            if answer.status == 503 {
                return answer.body;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(40), told).await.unwrap();
    assert!(told.contains("holds 0 wei and needs"), "{told}");
    assert!(service.log().contains("a wallet is short of gas and pauses"), "{}", service.log());
    assert_eq!((world.count(OPEN).await, world.count(CLAIMED).await), (1, 1));
    assert_eq!(world.node.n_pending().await, 0);
    // Refilled, it goes on by itself: the old bytes and the new payment.
    world.node.set_balance(wallet, FUNDS_WEI).await;
    world.node.mine(1).await;
    world.node.until_pending(2).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked, second]).await);
    assert_eq!(world.count("select count(*) from attempt").await, 2);
    assert_eq!(world.payee_balance().await, 20_000);
    assert_eq!(service.operations("/readyz").await.status, 200);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_wallet_takes_what_waits_meanwhile() {
    let world = World::stepped().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url), WALLET_MNEMONIC]).await;
    let poor = world.services.chain.wallet.address;
    let first = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.set_balance(poor, 0).await;
    world.node.mine(1).await;
    world.until("select count(*) from attempt where sent_answer = 'insufficient funds'", 1).await;
    let rich = world.add_wallet(1).await;
    world.until("select count(*) from lease where lease_name like 'wallet:%'", 2).await;
    let mut told = Vec::new();
    for n in 1..4 {
        let asked = settle_in_background(&service, &world.payment(n, 10_000));
        world.node.until_pending(1).await;
        assert_eq!(world.node.pool(rich).await.len(), 1);
        world.node.mine(1).await;
        told.extend(answers(vec![asked]).await);
    }
    assert_eq!(world.count(OPEN).await, 1, "what the poor wallet has open stays its own");
    world.node.set_balance(poor, FUNDS_WEI).await;
    // Sent again just before this block it stands in it, otherwise in the next.
    world.node.mine(1).await;
    for _ in 0..400 {
        if world.count(OPEN).await == 0 {
            break;
        }
        if world.node.n_pending().await > 0 {
            world.node.mine(1).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    told.extend(answers(vec![first]).await);
    assert_all_paid(&told);
    assert_eq!(world.payee_balance().await, 40_000);
    assert_eq!(world.count("select count(*) from attempt").await, 4);
    end(world, service, &[&proxy]).await;
}
