//! Somebody else sends with a wallet's key. Scenario 15 of the settlement-engine reference.

use quittance::app::dev::ChainRequest;

use crate::{
    RPC_URL, answers, assert_all_paid, end, settle_in_background,
    support::{Draft, Fault, Service, Signed, WALLET_MNEMONIC, World},
};

const OPEN: &str = "select count(*) from transaction where status = 'open'";
const ATTEMPTS: &str = "select count(*) from attempt";
const CLAIMED: &str = "select count(*) from settlement where status = 'claimed'";
const QUARANTINED: &str = "select count(*) from wallet where status = 'quarantined'";
const SUSPECTED: &str = "an account nonce was used by bytes that are not ours";

/// A chain whose safe head is two blocks behind.
async fn world() -> World {
    let slots_in_an_epoch = Some(2);
    World::start(ChainRequest { no_mining: true, slots_in_an_epoch, ..ChainRequest::default() })
        .await
}

/// The wallet's next nonce used by hand, at a price that displaces ours from a pool.
async fn by_hand(world: &World) -> Signed {
    let chain = &world.services.chain;
    let nonce = world.node.account_nonce(chain.wallet.address).await;
    let signed = Draft::new(nonce).sign(&chain.wallet, chain.chain_id);
    world.node.send_raw(&signed.raw).await.unwrap();
    signed
}

async fn until_suspected(service: &Service) {
    for _ in 0..1_000 {
        if service.log().contains(SUSPECTED) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("nothing was suspected:\n{}", service.log());
}

/// Nothing was concluded about the wallet or about what it has open.
async fn assert_undecided(world: &World, n_attempts: i64) {
    assert_eq!(world.count(QUARANTINED).await, 0);
    assert_eq!(world.count(OPEN).await, 1);
    assert_eq!(world.count(ATTEMPTS).await, n_attempts, "something new was signed");
    let failed = "select count(*) from event where status_to = 'failed'";
    assert_eq!(world.count(failed).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_taken_by_hand_quarantines_the_wallet_and_pays_from_another() {
    let world = world().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url), WALLET_MNEMONIC]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    let theirs = by_hand(&world).await;
    world.node.mine(1).await;
    assert!(world.node.receipt(theirs.hash).await.is_some());
    until_suspected(&service).await;
    let second = settle_in_background(&service, &world.payment(1, 10_000));
    world.until(CLAIMED, 1).await;
    proxy.until_called("eth_getTransactionCount", 4).await;
    assert_undecided(&world, 1).await;
    // The safe head reaches the foreign transaction.
    world.node.mine(2).await;
    world.until(QUARANTINED, 1).await;
    assert_eq!(world.count("select count(*) from transaction where status = 'foreign'").await, 1);
    world.until(CLAIMED, 2).await;
    assert_eq!(world.count(ATTEMPTS).await, 1);

    let other = world.add_wallet(1).await;
    for _ in 0..2 {
        world.until("select count(*) from attempt where sent_answer is null", 0).await;
        world.until(CLAIMED, 0).await;
    }
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked, second]).await);
    assert_eq!(world.payee_balance().await, 20_000);
    assert!(world.node.account_nonce(other).await >= 1);
    let wallet = world.services.chain.wallet.address;
    assert_eq!(
        world.node.account_nonce(wallet).await,
        proxy.log()[0].envelope.unwrap().account_nonce + 1
    );
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_taken_while_nothing_was_open_is_found_with_the_next_payment() {
    let world = world().await;
    world.add_wallet(1).await;
    sqlx::query("update wallet set status = 'paused'").execute(&world.books).await.unwrap();
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url), WALLET_MNEMONIC]).await;
    by_hand(&world).await;
    world.node.mine(1).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.until("select count(*) from attempt where sent_answer = 'nonce too low'", 1).await;
    world.node.mine(1).await;
    until_suspected(&service).await;
    assert_undecided(&world, 1).await;
    world.node.mine(2).await;
    world.until(QUARANTINED, 1).await;
    world.until(CLAIMED, 1).await;
    sqlx::query("update wallet set status = 'active' where status = 'paused'")
        .execute(&world.books)
        .await
        .unwrap();
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked]).await);
    assert_eq!(world.payee_balance().await, 10_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_disagree_conclude_nothing() {
    let world = world().await;
    let (first, second) = (world.proxy(), world.proxy());
    let urls = format!("{},{}", first.url, second.url);
    let service = world.service_with(&[(RPC_URL, &urls), WALLET_MNEMONIC]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    // One endpoint has not seen it.
    let old = world.node.account_nonce(world.services.chain.wallet.address).await;
    let old: &'static str = Box::leak(format!("\"{old:#x}\"").into_boxed_str());
    by_hand(&world).await;
    second.set("eth_getTransactionCount", Fault::Answer(old));
    world.node.mine(4).await;
    until_suspected(&service).await;
    second.until_called("eth_getTransactionCount", 3).await;
    assert_undecided(&world, 1).await;
    second.heal();
    world.until(QUARANTINED, 1).await;
    world.add_wallet(1).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked]).await);
    assert_eq!(world.payee_balance().await, 10_000);
    end(world, service, &[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganization_that_takes_the_foreign_transaction_back_lifts_the_suspicion() {
    let world = world().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    by_hand(&world).await;
    world.node.mine(1).await;
    until_suspected(&service).await;
    assert_undecided(&world, 1).await;
    world.node.reorg(1, &[]).await;
    // What was suspected is open again, and is sent again.
    world.node.mine(1).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![asked]).await);
    let second = settle_in_background(&service, &world.payment(1, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_all_paid(&answers(vec![second]).await);
    assert_eq!(world.count("select count(*) from wallet where status = 'active'").await, 1);
    assert_eq!(world.payee_balance().await, 20_000);
    end(world, service, &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_transaction_that_pays_ours_counts_as_paid() {
    let world = world().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url), WALLET_MNEMONIC]).await;
    let chain = &world.services.chain;
    let authorization = world.authorization(0, 10_000);
    let payment = world.buyer(0).request(&authorization).unwrap();
    let asked = settle_in_background(&service, &payment);
    world.node.until_pending(1).await;
    let signature = crate::front_run::signature_in(&payment);
    let draft = Draft {
        to: chain.usdc,
        data: quittance::chain::transfer_calldata(&authorization, &signature),
        gas_limit: 200_000,
        ..Draft::new(world.node.account_nonce(chain.wallet.address).await)
    };
    let theirs = draft.sign(&chain.wallet, chain.chain_id);
    world.node.send_raw(&theirs.raw).await.unwrap();
    world.node.mine(1).await;
    let told = answers(vec![asked]).await;
    assert_all_paid(&told);
    assert_eq!(told[0]["transaction"], theirs.hash.to_string());
    world.node.mine(2).await;
    world.until(QUARANTINED, 1).await;
    assert_eq!(world.count("select count(*) from settlement where status = 'included'").await, 1);
    assert_eq!(world.count("select count(*) from evidence where not by_us").await, 1);
    assert_eq!(world.payee_balance().await, 10_000);
    end(world, service, &[&proxy]).await;
}
