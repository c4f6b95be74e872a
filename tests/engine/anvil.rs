//! What anvil does otherwise than real nodes. Tests here rest on it, so a new version that changes
//! it must be noticed.

use serde_json::json;

use crate::support::{Dialect, Draft, Refusal, World};

#[tokio::test(flavor = "multi_thread")]
async fn anvil_takes_replacements_and_sizes_that_real_pools_refuse() {
    let world = World::stepped().await;
    let (chain, node) = (&world.services.chain, &world.node);
    let sign = |draft: &Draft| draft.sign(&chain.stranger, chain.chain_id);
    let first = Draft::new(node.account_nonce(chain.stranger.address).await);
    node.send_raw(&sign(&first).raw).await.unwrap();
    // Five per cent more on both fields.
    node.send_raw(&sign(&first.priced(105)).raw).await.unwrap();
    // Ten per cent more on one field only.
    let mut one_field = first.priced(105);
    one_field.fee_wei_max = one_field.fee_wei_max * 110 / 100;
    let one_field = sign(&one_field);
    node.send_raw(&one_field.raw).await.unwrap();
    assert_eq!(node.pool(chain.stranger.address).await[&first.account_nonce], one_field.hash);
    // 130 KiB of data.
    let mut large = Draft::new(first.account_nonce + 1);
    (large.data, large.gas_limit) = (vec![0; 130 * 1_024].into(), 15_000_000);
    node.send_raw(&sign(&large).raw).await.unwrap();
    // A gap is kept, not refused.
    let beyond_a_gap = Draft::new(first.account_nonce + 9);
    node.send_raw(&sign(&beyond_a_gap).raw).await.unwrap();
    assert_eq!(node.n_pending().await, 2);
    assert_eq!(node.pool(chain.stranger.address).await.len(), 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anvil_has_words_of_its_own_for_refusals() {
    let world = World::stepped().await;
    let (chain, node) = (&world.services.chain, &world.node);
    let sign = |draft: &Draft| draft.sign(&chain.stranger, chain.chain_id);
    let refused = async |draft: &Draft| node.send_raw(&sign(draft).raw).await.unwrap_err();
    let words = |refusal: Refusal| {
        let (code, message) = refusal.words(Dialect::Anvil);
        json!({ "code": code, "message": message })
    };
    node.mine(1).await;
    let first = Draft::new(node.account_nonce(chain.stranger.address).await);
    node.send_raw(&sign(&first).raw).await.unwrap();
    assert_eq!(refused(&first).await, words(Refusal::AlreadyKnown));
    let mut tip_only = first.clone();
    tip_only.priority_fee_wei_max *= 2;
    assert_eq!(refused(&tip_only).await, words(Refusal::ReplacementUnderpriced));
    node.mine(1).await;
    assert_eq!(refused(&first).await, words(Refusal::NonceTooLow));
    let mut low_gas = Draft::new(first.account_nonce + 1);
    low_gas.gas_limit = 20_000;
    assert_eq!(refused(&low_gas).await, words(Refusal::IntrinsicGas));
    let mut high_gas = low_gas;
    high_gas.gas_limit = 400_000_001;
    assert_eq!(refused(&high_gas).await, words(Refusal::BlockGasLimit));
    let next = Draft::new(first.account_nonce + 1);
    node.next_base_fee(2_000_000_000).await;
    assert_eq!(refused(&next).await, words(Refusal::FeeBelowBaseFee));
    node.next_base_fee(5_000_000).await;
    node.set_balance(chain.stranger.address, 1).await;
    assert_eq!(refused(&next).await, words(Refusal::InsufficientFunds));
    let undecodable = node.send_raw("0x02c0").await.unwrap_err();
    assert_eq!(undecodable, words(Refusal::Undecodable));
    let elsewhere = next.sign(&chain.stranger, "eip155:1".parse().unwrap());
    let wrong_chain = node.send_raw(&elsewhere.raw).await.unwrap_err();
    assert_eq!(wrong_chain, words(Refusal::WrongChain));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anvil_forgets_what_a_reorganization_drops() {
    let world = World::stepped().await;
    let (chain, node) = (&world.services.chain, &world.node);
    let stranger = chain.stranger.address;
    let draft = Draft::new(node.account_nonce(stranger).await);
    let sent = draft.sign(&chain.stranger, chain.chain_id);
    node.send_raw(&sent.raw).await.unwrap();
    node.mine(1).await;
    let height = node.block_number().await;
    let old = node.block_hash(height).await.unwrap();
    assert!(node.receipt(sent.hash).await.is_some());
    node.reorg(1, &[]).await;
    // The height stays, the hash does not, and nothing comes back to the pool.
    assert_eq!(node.block_number().await, height);
    assert_ne!(node.block_hash(height).await.unwrap(), old);
    assert!(node.call("eth_getBlockByHash", json!([old, false])).await.is_null());
    let unknown = node.try_call("eth_getLogs", json!([{ "blockHash": old }])).await.unwrap_err();
    assert_eq!(unknown["message"], "unknown block");
    assert!(node.receipt(sent.hash).await.is_none());
    assert!(node.pool(stranger).await.is_empty());
    // With the bytes, it stands in the new block.
    node.reorg(1, &[(sent.raw.clone(), 0)]).await;
    assert!(node.receipt(sent.hash).await.is_some());
    // A head that goes back gives nothing back either.
    node.rollback(1).await;
    assert_eq!(node.block_number().await, height - 1);
    assert!(node.pool(stranger).await.is_empty());
    assert_eq!(node.account_nonce(stranger).await, draft.account_nonce);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anvil_evicts_what_it_cannot_mine_but_keeps_what_does_not_fit() {
    let world = World::stepped().await;
    let (chain, node) = (&world.services.chain, &world.node);
    let stranger = chain.stranger.address;
    let next = Draft::new(node.account_nonce(stranger).await);
    let sent = next.sign(&chain.stranger, chain.chain_id);
    // A base fee above the offer: real nodes keep the transaction parked.
    node.send_raw(&sent.raw).await.unwrap();
    node.next_base_fee(2_000_000_000).await;
    node.mine(1).await;
    assert!(node.transaction(sent.hash).await.is_none());
    // No money.
    node.next_base_fee(5_000_000).await;
    node.send_raw(&sent.raw).await.unwrap();
    node.set_balance(stranger, 0).await;
    node.mine(1).await;
    assert!(node.transaction(sent.hash).await.is_none());
    // The account nonce used by another transaction.
    node.set_balance(stranger, 1_000_000_000_000_000_000).await;
    node.send_raw(&sent.raw).await.unwrap();
    node.set_nonce(stranger, next.account_nonce + 1).await;
    assert_eq!(node.pool(stranger).await.len(), 1);
    node.mine(1).await;
    assert!(node.pool(stranger).await.is_empty());
    assert_eq!(node.send_raw(&sent.raw).await.unwrap_err()["message"], "nonce too low");
    // Blocks that are too small for a second transaction.
    node.set_block_gas_limit(30_000).await;
    for n in 1..=2 {
        let draft = Draft::new(next.account_nonce + n);
        node.send_raw(&draft.sign(&chain.stranger, chain.chain_id).raw).await.unwrap();
    }
    node.mine(1).await;
    assert_eq!(node.n_pending().await, 1);
    world.stop().await;
}
