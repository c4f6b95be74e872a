//! The suite is itself tested: each defect that another engine has is switched on, and a test of this
//! binary must notice it.
//!
//! The tests that come first are those that no other fear called for.

use alloy::primitives::Address;
use quittance::{chain::transfer_calldata, domain::Authorization, verify::EcdsaSignature};
use serde_json::{Value, json};

use crate::{
    settle_in_background,
    support::{Draft, Fault, RPC_URL, Refusal, World},
};

const INCLUDED: &str = "select count(*) from settlement where status = 'included'";
const REVERSED: &str =
    "select count(*) from ledger_entry where subject = 'payment' and kind = 'reverse'";
const DEPLOY_SETTLER: &str = "QUITTANCE__CHAINS__LOCAL__DEPLOY_SETTLER";

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_failed_is_repeated_and_nothing_else_is_sent_or_said() {
    let world = World::stepped().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    let mut payments = Vec::new();
    for (n, fault) in
        [Fault::DropBefore, Fault::Refuse(Refusal::PoolFull), Fault::Refuse(Refusal::BlockGasLimit)]
            .into_iter()
            .enumerate()
    {
        let n_sent = proxy.sent().len();
        proxy.set_nth("eth_sendRawTransaction", 1, fault);
        let payment = world.payment(n, 1_000);
        let asked = settle_in_background(&service, &payment);
        let n_noted = i64::try_from(n + 1).unwrap();
        world.until("select count(*) from attempt where sent_answer is not null", n_noted).await;
        world.node.mine(1).await;
        for _ in 0..1_000 {
            if proxy.sent().len() > n_sent + 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let sent = &proxy.sent()[n_sent..];
        assert!(sent.len() > 1 && sent.iter().all(|raw| *raw == sent[0]), "{fault:?}: {sent:?}");
        world.node.until_pending(1).await;
        world.node.mine(1).await;
        let answer = asked.await.unwrap().expect("an answer");
        assert_eq!(answer["success"], true, "{fault:?}: {answer}");
        payments.push(payment);
    }
    assert_eq!(world.count("select count(*) from event where status_to = 'failed'").await, 0);
    world.check_paid_once(&payments).await;
    world.check_sent(&[&proxy]).await;
    world.check_at_rest().await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganization_that_shows_only_in_parent_hashes_is_found() {
    let world = World::stepped().await;
    let service = world.service().await;
    let payment = world.payment(0, 10_000);
    let asked = settle_in_background(&service, &payment);
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(asked.await.unwrap().expect("an answer")["success"], true);
    // While nobody looks, another block takes the place of ours, and the chain grows beyond it.
    service.pause().await;
    world.node.reorg(1, &[]).await;
    world.node.mine(2).await;
    service.resume().await;
    let head = i64::try_from(world.node.block_number().await).unwrap();
    world.until("select number from chain_head", head).await;
    assert_eq!(world.count(REVERSED).await, 1);
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until(INCLUDED, 1).await;
    world.check_paid_once(&[payment]).await;
    world.check_at_rest().await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_gas_for_every_item_whatever_they_use_while_it_is_signed() {
    let world = World::stepped().await;
    let service = world.service_with(&[(DEPLOY_SETTLER, "false")]).await;
    world.pause_wallets().await;
    let payments = [world.payment(0, 1_000), world.payment(1, 1_000)];
    let asked = payments.each_ref().map(|payment| settle_in_background(&service, payment));
    world.until("select count(*) from settlement where status = 'claimed'", 2).await;
    let usdc = world.services.chain.usdc;
    let code = world.node.call("eth_getCode", json!([usdc, "latest"])).await;
    // PUSH 0, PUSH 0, REVERT: for a moment the items fail, and need next to no gas.
    world.node.call("anvil_setCode", json!([usdc, "0x60006000fd"])).await;
    let fresh = "update settlement set created_at = now()";
    sqlx::query(fresh).execute(&world.books).await.unwrap();
    world.resume_wallets().await;
    world.until("select count(*) from transaction", 1).await;
    world.node.call("anvil_setCode", json!([usdc, code])).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    world.until("select count(*) from transaction where status = 'mined'", 1).await;
    assert_eq!(world.count(INCLUDED).await, 2);
    for task in asked {
        assert_eq!(task.await.unwrap().expect("an answer")["success"], true);
    }
    world.check_paid_once(&payments).await;
    world.check_at_rest().await;
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_spent_elsewhere_while_the_index_of_logs_lagged_is_a_failure() {
    let world = World::stepped().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    world.pause_wallets().await;
    let authorization = world.authorization(0, 10_000);
    let payment = world.buyer(0).request(&authorization).unwrap();
    let asked = settle_in_background(&service, &payment);
    world.until("select count(*) from settlement where status = 'claimed'", 1).await;
    // The block that spends the nonce is read without its logs.
    proxy.set("eth_getLogs", Fault::Answer("[]"));
    let elsewhere = Authorization { payee: Address::repeat_byte(7), ..authorization };
    let spent = world.buyer(0).request(&elsewhere).unwrap();
    let chain = &world.services.chain;
    let spend = Draft {
        gas_limit: 300_000,
        to: chain.usdc,
        data: transfer_calldata(&elsewhere, &signature_in(&spent)),
        ..Draft::new(world.node.account_nonce(chain.stranger.address).await)
    };
    let spend = spend.sign(&chain.stranger, chain.chain_id);
    world.node.send_raw(&spend.raw).await.unwrap();
    world.node.mine(1).await;
    assert_eq!(world.node.receipt(spend.hash).await.unwrap()["status"], "0x1");
    let head = i64::try_from(world.node.block_number().await).unwrap();
    world.until("select number from chain_head", head).await;
    proxy.heal();
    // Old enough to be looked into before it is signed for.
    let old = "update settlement set created_at = created_at - interval '5 seconds'";
    sqlx::query(old).execute(&world.books).await.unwrap();
    world.resume_wallets().await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["errorReason"], "invalid_exact_evm_nonce_already_used", "{answer}");
    assert_eq!(world.count("select count(*) from attempt").await, 0);
    assert_eq!(world.payee_balance().await, 0);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

fn signature_in(payment: &Value) -> EcdsaSignature {
    let text = payment["paymentPayload"]["payload"]["signature"].as_str().unwrap();
    EcdsaSignature::parse(&alloy::hex::decode(text).unwrap()).unwrap()
}

#[cfg(feature = "fault-injection")]
mod switched_on {
    use std::{process::Stdio, time::Duration};

    use futures_util::{StreamExt as _, stream};
    use quittance::faults::Defect;
    use tokio::process::Command;

    /// How many tests run at a time.
    const N_AT_ONCE: usize = 2;
    /// Longer than every wait of a test that fails.
    const TIMEOUT: Duration = Duration::from_secs(120);
    /// What `cargo test` programs end with when a test has failed.
    const FAILED: i32 = 101;

    const FAILED_SEND: &str =
        "defects::a_send_that_failed_is_repeated_and_nothing_else_is_sent_or_said";

    /// The test that notices it. That the test passes otherwise is seen where it stands.
    const fn catcher(defect: Defect) -> &'static str {
        match defect {
            Defect::ResetNonce | Defect::RecycleNonce | Defect::FailOnTimeout => FAILED_SEND,
            Defect::ReorgByHeight => {
                "defects::a_reorganization_that_shows_only_in_parent_hashes_is_found"
            }
            Defect::EstimateGas => {
                "defects::a_batch_has_gas_for_every_item_whatever_they_use_while_it_is_signed"
            }
            Defect::UsedIsPaid => {
                "defects::a_nonce_spent_elsewhere_while_the_index_of_logs_lagged_is_a_failure"
            }
            Defect::EveryoneIsTold => {
                "duplicates::of_two_callers_that_both_believe_in_their_right_one_is_told"
            }
        }
    }

    const DEFECTS: [Defect; 7] = [
        Defect::ResetNonce,
        Defect::RecycleNonce,
        Defect::FailOnTimeout,
        Defect::ReorgByHeight,
        Defect::EstimateGas,
        Defect::UsedIsPaid,
        Defect::EveryoneIsTold,
    ];

    #[tokio::test(flavor = "multi_thread")]
    async fn every_known_defect_is_noticed_by_a_test() {
        let outcomes: Vec<(Defect, Result<String, String>)> = stream::iter(DEFECTS)
            .map(|defect| async move { (defect, failure_under(defect).await) })
            .buffered(N_AT_ONCE)
            .collect()
            .await;
        for (defect, outcome) in &outcomes {
            println!("{defect:?}: {}", catcher(*defect));
            println!("    {}", outcome.as_deref().unwrap_or("NOT NOTICED"));
        }
        for (defect, outcome) in outcomes {
            outcome.unwrap_or_else(|output| panic!("{defect:?} was not noticed:\n{output}"));
        }
    }

    /// What the test says that fails under `defect`; all it printed, if it does not fail.
    async fn failure_under(defect: Defect) -> Result<String, String> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", catcher(defect), "--nocapture"])
            .env("QUITTANCE_DEFECT", format!("{defect:?}"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(TIMEOUT, command.output()).await;
        let output = ended.expect("the test ends").unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let has_run = said.contains("running 1 test");
        if output.status.code() != Some(FAILED) || !has_run {
            return Err(said);
        }
        let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
        let place = lines.next().unwrap_or_default();
        let words: String = lines.next().unwrap_or_default().chars().take(150).collect();
        Ok(format!("{place} {words}"))
    }
}
