//! The tools that the other tests trust: each misbehaves as it says, and otherwise not at all.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    settle_in_background,
    support::{
        DATABASE_URL, DeadEndpoint, Dialect, Draft, Fault, Node, RPC_URL, Refusal, Trouble, World,
    },
};

const INCLUDED: &str = "select count(*) from settlement where status = 'included'";

/// Status and body of a raw call.
async fn post(url: &str, call: Value) -> (u16, String) {
    let response = reqwest::Client::new().post(url).json(&call).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn call(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_of_one_call_of_one_method_or_of_all() {
    let world = World::stepped().await;
    let proxy = world.proxy();
    let status = async |method: &str| post(&proxy.url, call(method, json!([]))).await.0;
    proxy.set_nth("eth_blockNumber", 2, Fault::DropBefore);
    proxy.set_nth("eth_blockNumber", 3, Fault::ErrorAfterForward(Trouble::TooManyRequests));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        assert_eq!(status("eth_chainId").await, 200);
        statuses.push(status("eth_blockNumber").await);
    }
    assert_eq!(statuses, [200, 502, 429, 200]);
    // One call differs from what its method always does, and that from what everything does.
    proxy.set_all(Fault::DropBefore);
    proxy.set("eth_blockNumber", Fault::ErrorAfterForward(Trouble::TooManyRequests));
    proxy.set_nth("eth_blockNumber", 2, Fault::Delay(Duration::ZERO));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(status("eth_blockNumber").await);
    }
    assert_eq!((statuses, status("eth_chainId").await), (vec![429, 200, 429], 502));
    proxy.heal();
    let calls = json!([call("eth_chainId", json!([])), call("eth_blockNumber", json!([]))]);
    proxy.set_nth("eth_chainId", 1, Fault::ChainId(5));
    let (status, body) = post(&proxy.url, calls).await;
    assert_eq!((status, body.contains(r#""result":"0x5""#)), (200, true), "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap().as_array().unwrap().len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_after_forwarding_leave_the_transaction_with_the_node() {
    let world = World::stepped().await;
    let (chain, node, proxy) = (&world.services.chain, &world.node, world.proxy());
    let stranger = chain.stranger.address;
    let nonce = node.account_nonce(stranger).await;
    let full = "txpool is full";
    for (n, (fault, status, words)) in (0..).zip([
        (Fault::ErrorAfterForward(Trouble::BadGateway), 502, ""),
        (Fault::ErrorAfterForward(Trouble::TooManyRequests), 429, ""),
        (Fault::ErrorAfterForward(Trouble::Garbage), 200, "{\"jsonrpc\":\"2.0\",\"id\":"),
        (Fault::ErrorAfterForward(Trouble::Refused(Refusal::PoolFull)), 200, full),
        (Fault::DropAfterForward, 502, ""),
        (Fault::Duplicate(3), 200, "already imported"),
        (Fault::Delay(Duration::from_millis(300)), 200, "result"),
    ]) {
        let sent = Draft::new(nonce + n).sign(&chain.stranger, chain.chain_id);
        proxy.set_nth("eth_sendRawTransaction", 1, fault);
        let began = Instant::now();
        let answer = post(&proxy.url, call("eth_sendRawTransaction", json!([sent.raw]))).await;
        assert!(answer.0 == status && answer.1.contains(words), "{fault:?}: {answer:?}");
        assert_eq!(node.pool(stranger).await.get(&(nonce + n)), Some(&sent.hash), "{fault:?}");
        let is_late = began.elapsed() >= Duration::from_millis(300);
        assert!(is_late || !matches!(fault, Fault::Delay(_)));
    }
    let n_forwarded: Vec<u32> = proxy.log().iter().map(|sent| sent.n_forwarded).collect();
    assert_eq!(n_forwarded, [1, 1, 1, 1, 1, 3, 1]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_node_knows_nothing_later_than_its_head() {
    let world = World::stepped().await;
    let (chain, node, proxy) = (&world.services.chain, &world.node, world.proxy());
    let stranger = chain.stranger.address;
    let sent = Draft::new(node.account_nonce(stranger).await).sign(&chain.stranger, chain.chain_id);
    node.send_raw(&sent.raw).await.unwrap();
    node.mine(3).await;
    let head = node.block_number().await;
    let newest = node.block_hash(head).await.unwrap();
    let stale = Node::new(&proxy.url);
    let nonce = stale.account_nonce(stranger).await;
    proxy.set_all(Fault::Stale(3));
    assert_eq!(stale.block_number().await, head - 3);
    let latest = stale.call("eth_getBlockByNumber", json!(["latest", false])).await;
    assert_eq!(latest["number"], format!("{:#x}", head - 3));
    assert_eq!(stale.block_hash(head - 2).await, None);
    assert!(stale.call("eth_getBlockByHash", json!([newest, false])).await.is_null());
    assert_eq!(stale.account_nonce(stranger).await, nonce - 1);
    assert_eq!((stale.receipt(sent.hash).await, stale.transaction(sent.hash).await), (None, None));
    let range = json!([{ "fromBlock": format!("{:#x}", head - 2), "toBlock": "latest" }]);
    assert_eq!(stale.call("eth_getLogs", range).await, json!([]));
    for (method, params) in [
        ("eth_getLogs", json!([{ "blockHash": newest }])),
        ("eth_call", json!([{ "to": chain.usdc }, { "blockHash": newest }])),
        ("eth_getBalance", json!([stranger, format!("{head:#x}")])),
    ] {
        assert!(stale.try_call(method, params).await.is_err(), "{method}");
    }
    proxy.set_all(Fault::Stale(2));
    assert!(stale.receipt(sent.hash).await.is_some());
    proxy.heal();
    assert_eq!(stale.block_number().await, head);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_can_be_as_strict_as_real_pools() {
    let world = World::stepped().await;
    let (chain, node, proxy) = (&world.services.chain, &world.node, world.proxy());
    let sign = |draft: &Draft| draft.sign(&chain.stranger, chain.chain_id);
    let pool = Node::new(&proxy.url);
    let refused = async |draft: &Draft| pool.send_raw(&sign(draft).raw).await.unwrap_err();
    proxy.enforce_replacement();
    proxy.enforce_size();
    proxy.speak(Dialect::Geth);
    let first = Draft::new(node.account_nonce(chain.stranger.address).await);
    pool.send_raw(&sign(&first).raw).await.unwrap();
    assert_eq!(refused(&first).await, json!({ "code": -32_000, "message": "already known" }));
    let underpriced = json!({ "code": -32_000, "message": "replacement transaction underpriced" });
    let mut one_field = first.priced(110);
    one_field.priority_fee_wei_max -= 1;
    for draft in [first.priced(109), one_field] {
        assert_eq!(refused(&draft).await, underpriced);
    }
    let bump = first.priced(110);
    pool.send_raw(&sign(&bump).raw).await.unwrap();
    assert_eq!(refused(&bump.priced(109)).await, underpriced);
    // What the pool has forgotten is no reason to refuse.
    node.drop_transaction(sign(&bump).hash).await;
    pool.send_raw(&sign(&first).raw).await.unwrap();
    node.mine(1).await;
    let too_low = refused(&first).await;
    assert_eq!(too_low["code"], -32_000);
    assert!(too_low["message"].as_str().unwrap().starts_with("nonce too low: "), "{too_low}");
    // The limit is of the whole envelope.
    let mut large = Draft::new(first.account_nonce + 1);
    large.gas_limit = 15_000_000;
    let overhead =
        (sign(&Draft { data: vec![0; 128 * 1_024].into(), ..large.clone() }).raw.len() - 2) / 2
            - 128 * 1_024;
    large.data = vec![0; 128 * 1_024 - overhead + 1].into();
    assert!(refused(&large).await["message"].as_str().unwrap().starts_with("oversized data"));
    large.data = vec![0; 128 * 1_024 - overhead].into();
    pool.send_raw(&sign(&large).raw).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_in_the_words_of_other_nodes() {
    let world = World::stepped().await;
    let (chain, proxy) = (&world.services.chain, world.proxy());
    let pool = Node::new(&proxy.url);
    let nonce = world.node.account_nonce(chain.stranger.address).await;
    let used = Draft::new(nonce).sign(&chain.stranger, chain.chain_id);
    pool.send_raw(&used.raw).await.unwrap();
    world.node.mine(1).await;
    for (dialect, code, words) in [
        (Dialect::Anvil, -32_003, "nonce too low"),
        (Dialect::Geth, -32_000, "nonce too low: next nonce 2, tx nonce 1"),
        (Dialect::Reth, -32_000, "nonce too low: next nonce 2, tx nonce 1"),
    ] {
        proxy.speak(dialect);
        let told = json!({ "code": code, "message": words });
        assert_eq!(pool.send_raw(&used.raw).await, Err(told));
        // Errors of other methods are not about transactions.
        let other = pool.try_call("eth_getLogs", json!([{ "blockHash": used.hash }])).await;
        assert_eq!(other.unwrap_err()["message"], "unknown block");
        for refusal in Refusal::ALL {
            proxy.set_nth("eth_sendRawTransaction", 1, Fault::Refuse(refusal));
            let (code, message) = refusal.words(dialect);
            let told = json!({ "code": code, "message": message });
            assert_eq!(pool.send_raw(&used.raw).await, Err(told));
        }
    }
    assert_eq!(proxy.log().iter().filter(|sent| sent.n_forwarded > 0).count(), 4);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_held_against_the_books() {
    let world = World::stepped().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    let asked = settle_in_background(&service, &world.payment(0, 10_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(asked.await.unwrap().expect("an answer")["success"], true);
    world.check_sent(&[&proxy]).await;
    let log = proxy.log();
    let envelope = log[0].envelope.unwrap();
    assert_eq!((log[0].was_stored, log[0].n_forwarded), (Some(true), 1));
    assert_eq!(envelope.sender, world.services.chain.wallet.address);
    let stored: (Vec<u8>, String, String, i64, i64) = sqlx::query_as(
        "select transaction_hash, fee_wei_max::text, priority_fee_wei_max::text, gas_limit,
            account_nonce from attempt join transaction using (transaction_id)",
    )
    .fetch_one(&world.books)
    .await
    .unwrap();
    assert_eq!(stored.0, log[0].hash.to_vec());
    assert_eq!(stored.1, envelope.fee_wei_max.to_string());
    assert_eq!(stored.2, envelope.priority_fee_wei_max.to_string());
    assert_eq!(
        (stored.3, stored.4),
        (
            i64::try_from(envelope.gas_limit).unwrap(),
            i64::try_from(envelope.account_nonce).unwrap(),
        )
    );
    // What the books do not know is noticed.
    let chain = &world.services.chain;
    let foreign = Draft::new(9).sign(&chain.stranger, chain.chain_id);
    let _ = Node::new(&proxy.url).send_raw(&foreign.raw).await;
    assert_eq!(proxy.log().last().unwrap().was_stored, Some(false));
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_books_and_chain_and_can_be_stopped_in_every_way() {
    let world = World::stepped().await;
    let proxies = [world.proxy(), world.proxy()];
    let settings = [&[(RPC_URL, &*proxies[0].url)][..], &[(RPC_URL, &*proxies[1].url)][..]];
    let mut replicas = world.replicas_with(&settings).await;
    let (second, first) = (replicas.pop().unwrap(), replicas.pop().unwrap());
    assert_ne!(first.url, second.url);
    first.pause().await;
    let asked = settle_in_background(&first, &world.payment(0, 1_000));
    let paid = settle_in_background(&second, &world.payment(1, 1_000));
    world.until("select count(*) from settlement", 1).await;
    first.resume().await;
    world.until("select count(*) from settlement", 2).await;
    world.node.until_pending(2).await;
    world.node.mine(1).await;
    for answer in [asked, paid] {
        assert_eq!(answer.await.unwrap().expect("an answer")["success"], true);
    }
    world.until(INCLUDED, 2).await;
    world.check_sent(&[&proxies[0], &proxies[1]]).await;
    first.kill().await;
    second.signal("TERM").await;
    assert!(second.ended().await.success());
    for replica in world.replicas(3).await {
        replica.stop().await;
    }
    world.check_books().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_refuses_or_keeps_silent() {
    quittance::app::install_tls_provider();
    let client = reqwest::Client::builder().timeout(Duration::from_millis(300)).build().unwrap();
    let refusing = DeadEndpoint::refusing();
    let refused = client.post(&refusing.url).body("{}").send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    let silent = DeadEndpoint::silent().await;
    let timed_out = client.post(&silent.url).body("{}").send().await.unwrap_err();
    assert!(timed_out.is_timeout() && !timed_out.is_connect(), "{timed_out:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_commit_can_be_lost_with_and_without_the_commit() {
    let world = World::stepped().await;
    let pg = world.pg_proxy().await;
    let pool = sqlx::PgPool::connect(&pg.url).await.unwrap();
    sqlx::raw_sql("create table mark (n integer)").execute(&world.books).await.unwrap();
    let commit = async |n: i32| {
        let mut transaction = pool.begin().await?;
        let statement =
            if n > 4 { "insert into mark values ($1)" } else { "insert into mark select $1" };
        sqlx::query(statement).bind(n).execute(&mut *transaction).await?;
        transaction.commit().await
    };
    let is_marked = async |n: i32| {
        let sql = "select count(*) from mark where n = $1";
        sqlx::query_scalar::<_, i64>(sql).bind(n).fetch_one(&world.books).await.unwrap() == 1
    };
    commit(0).await.unwrap();
    pg.cut_after_commit("", 2);
    commit(1).await.unwrap();
    assert_eq!(pg.n_cuts(), 0);
    commit(2).await.unwrap_err();
    assert!(is_marked(2).await, "the commit did not reach the server");
    pg.cut_before_commit("", 1);
    commit(3).await.unwrap_err();
    assert!(!is_marked(3).await, "the commit reached the server");
    // Of these words, whether the statement is new to the connection or known.
    commit(5).await.unwrap();
    pg.cut_after_commit("into mark values", 2);
    for n in [4, 6] {
        commit(n).await.unwrap();
    }
    commit(7).await.unwrap_err();
    assert!(is_marked(7).await);
    assert_eq!(pg.n_cuts(), 3);
    pg.refuse();
    commit(8).await.unwrap_err();
    pg.accept();
    commit(9).await.unwrap();
    pool.close().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_lives_behind_the_postgres_proxy_and_through_a_crash_of_postgres() {
    let mut world = World::stepped().await;
    let pg = world.pg_proxy().await;
    let service = world.service_with(&[(DATABASE_URL, &pg.url)]).await;
    pg.cut_after_commit("insert into attempt", 1);
    let asked = settle_in_background(&service, &world.payment(0, 1_000));
    world.node.until_pending(1).await;
    assert_eq!(pg.n_cuts(), 1, "the transaction was stored without a cut");
    assert_eq!(world.count("select count(*) from attempt").await, 1);
    world.restart_postgres_immediate().await;
    let recovered = std::fs::read_to_string(world.postgres_log()).unwrap();
    assert!(recovered.contains("was not properly shut down"), "{recovered}");
    world.node.mine(1).await;
    world.until(INCLUDED, 1).await;
    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_has_the_blocks_and_an_empty_pool() {
    let mut world = World::stepped().await;
    let proxy = world.proxy();
    let service = world.service_with(&[(RPC_URL, &proxy.url)]).await;
    let first = settle_in_background(&service, &world.payment(0, 1_000));
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(first.await.unwrap().expect("an answer")["success"], true);
    let second = settle_in_background(&service, &world.payment(1, 1_000));
    world.node.until_pending(1).await;
    let head = world.node.block_number().await;
    let hash = world.node.block_hash(head).await;
    proxy.set_all(Fault::DropBefore);
    world.node.call("evm_setIntervalMining", json!([3_600])).await;
    world.restart_node().await;
    assert_eq!(world.node.call("anvil_getIntervalMining", json!([])).await, 3_600);
    assert_eq!((world.node.block_number().await, world.node.n_pending().await), (head, 0));
    assert_eq!(world.node.block_hash(head).await, hash);
    assert_eq!(world.payee_balance().await, 1_000);
    let sent = proxy.log()[0].hash;
    assert!(world.node.receipt(sent).await.is_some());
    proxy.retarget(world.node.url());
    proxy.heal();
    world.node.mine(1).await;
    world.node.until_pending(1).await;
    world.node.mine(1).await;
    assert_eq!(second.await.unwrap().expect("an answer")["success"], true);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_set_and_code_is_placed() {
    let world = World::stepped().await;
    let (chain, node) = (&world.services.chain, &world.node);
    let time = async || {
        let block = node.call("eth_getBlockByNumber", json!(["latest", false])).await;
        u64::from_str_radix(block["timestamp"].as_str().unwrap().trim_start_matches("0x"), 16)
    };
    let later = time().await.unwrap() + 1_000_000;
    node.set_time(later).await;
    node.mine(1).await;
    assert_eq!(time().await.unwrap(), later);
    // A delegation (EIP-7702). anvil aborts on half of one.
    let code = [&[0xef, 0x01, 0x00][..], chain.usdc.as_slice()].concat().into();
    node.set_code(chain.pauper.address, &code).await;
    let placed = node.call("eth_getCode", json!([chain.pauper.address, "latest"])).await;
    assert_eq!(placed, json!(code));
    node.set_nonce(chain.pauper.address, 7).await;
    assert_eq!(node.account_nonce(chain.pauper.address).await, 7);
    node.set_balance(chain.pauper.address, 9).await;
    let balance = node.call("eth_getBalance", json!([chain.pauper.address, "latest"])).await;
    assert_eq!(balance, "0x9");
    let sent = Draft::new(node.account_nonce(chain.stranger.address).await)
        .sign(&chain.stranger, chain.chain_id);
    node.send_raw(&sent.raw).await.unwrap();
    node.drop_all_transactions().await;
    assert!(node.pool(chain.stranger.address).await.is_empty());
    world.stop().await;
}
