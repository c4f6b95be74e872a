//! Somebody else submits the authorization, or the payer spends its nonce on something else.

use alloy::{
    primitives::{Address, B256},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol,
    sol_types::{SolCall, SolStruct, eip712_domain},
};
use quittance::{
    chain::transfer_calldata,
    domain::{Authorization, TokenDomain},
    verify::{EcdsaSignature, authorization_digest},
};
use serde_json::{Value, json};

use crate::{
    settle_in_background,
    support::{Fault, Proxy, Service, World},
};

sol! {
    function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s);
    struct CancelAuthorization {
        address authorizer;
        bytes32 nonce;
    }
}

/// A service whose transactions reach the pool only once the proxy is healed, so that whatever a
/// stranger sends meanwhile is first.
async fn slow_service(world: &World) -> (Proxy, Service) {
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    proxy.set("eth_sendRawTransaction", Fault::DropBefore);
    let service = world.service_with(&[("QUITTANCE__CHAINS__LOCAL__RPC_URL", &proxy.url)]).await;
    (proxy, service)
}

/// Lets our transactions through, and waits until `n` of them are mined.
async fn let_through(world: &World, proxy: &Proxy, n: i64) {
    proxy.heal();
    world.node.mine(1).await;
    world.node.until_pending(u64::try_from(n).unwrap()).await;
    world.node.mine(1).await;
    world.until("select count(*) from transaction where status = 'mined'", n).await;
}

/// Has the stranger send `data` to the token.
async fn stranger_sends(world: &World, data: &[u8]) -> B256 {
    let chain = &world.services.chain;
    let stranger = chain.stranger.address;
    world.node.call("anvil_impersonateAccount", json!([stranger])).await;
    let hash = world
        .node
        .call(
            "eth_sendTransaction",
            json!([{ "from": stranger, "to": chain.usdc, "gas": "0x493e0",
                "data": alloy::hex::encode_prefixed(data) }]),
        )
        .await;
    hash.as_str().unwrap().parse().unwrap()
}

/// The signature of a payment that a buyer made.
pub(super) fn signature_in(payment: &Value) -> EcdsaSignature {
    let text = payment["paymentPayload"]["payload"]["signature"].as_str().unwrap();
    EcdsaSignature::parse(&alloy::hex::decode(text).unwrap()).unwrap()
}

fn sign(world: &World, payer: usize, digest: B256) -> EcdsaSignature {
    let key: PrivateKeySigner = world.services.chain.payers[payer].private_key.parse().unwrap();
    EcdsaSignature::parse(&key.sign_hash_sync(&digest).unwrap().as_bytes()).unwrap()
}

fn domain(world: &World) -> TokenDomain {
    let chain = &world.services.chain;
    TokenDomain { name: chain.usdc_name.clone(), version: chain.usdc_version.clone() }
}

/// What cancels an authorization of the n-th buyer, whoever sends it to the token.
pub(super) fn cancellation(world: &World, payer: usize, authorization: &Authorization) -> Vec<u8> {
    let chain = &world.services.chain;
    let (authorizer, nonce) = (authorization.payer, *authorization.nonce.as_bytes());
    let digest = CancelAuthorization { authorizer, nonce }.eip712_signing_hash(&eip712_domain! {
        name: chain.usdc_name.clone(),
        version: chain.usdc_version.clone(),
        chain_id: chain.chain_id.eip155(),
        verifying_contract: chain.usdc,
    });
    let signature = sign(world, payer, digest);
    let (v, r, s) = (signature.v(), signature.r(), signature.s());
    cancelAuthorizationCall { authorizer, nonce, v, r, s }.abi_encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_a_stranger_submitted_first_is_a_success_with_the_strangers_hash() {
    let world = World::stepped().await;
    let (proxy, service) = slow_service(&world).await;
    let authorization = world.authorization(0, 10_000);
    let payment = world.buyer(0).request(&authorization).unwrap();
    let asked = settle_in_background(&service, &payment);
    world.until("select count(*) from attempt where sent_answer is not null", 1).await;
    let calldata = transfer_calldata(&authorization, &signature_in(&payment));
    let theirs = stranger_sends(&world, &calldata).await;
    world.node.mine(1).await;

    let answer = asked.await.unwrap().expect("an answer");
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(answer["transaction"], json!(theirs), "{answer}");
    assert_eq!(world.count("select count(*) from evidence where not by_us").await, 1);
    // Ours is mined later, and reverts: its gas is in the books, and nothing else.
    let_through(&world, &proxy, 1).await;
    assert_eq!(world.count("select count(*) from ledger_entry where subject = 'gas'").await, 1);
    assert_eq!(world.payee_balance().await, 10_000);
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_submitted_by_a_stranger_between_verification_and_claim_is_found() {
    let world = World::automine().await;
    // The search reaches far back, and the endpoint allows short searches only.
    let proxy = Proxy::before(&world.services.chain.rpc_url);
    proxy.set("eth_getLogs", Fault::ShortRange);
    let service = world.service_with(&[("QUITTANCE__CHAINS__LOCAL__RPC_URL", &proxy.url)]).await;
    let authorization = world.authorization(0, 10_000);
    let payment = world.buyer(0).request(&authorization).unwrap();
    // The claim is written by hand, as it would stand if the stranger's block had been applied
    // between our look at the chain and our commit.
    assert_eq!(service.settle(&world.payment(1, 5)).await["success"], true);
    let verified_at = world.node.block_number().await;
    let calldata = transfer_calldata(&authorization, &signature_in(&payment));
    let theirs = stranger_sends(&world, &calldata).await;
    let number = i64::try_from(verified_at + 1).unwrap();
    world.until("select max(number) from chain_head", number).await;
    let inserted = sqlx::query(
        "insert into settlement (settlement_id, merchant_id, api_key_id, x402_version, scheme, chain_id,
            asset, payer, payee, amount, valid_after, valid_before, authorization_nonce, signature,
            token_name, token_version, digest, verified_block)
         select $1, merchant_id, api_key_id, 2, 'exact', chain_id, asset, $2, payee, 10000, 0,
            $3::text::numeric, $4, $5, token_name, token_version, $6, $7 from settlement",
    )
    .bind(uuid::Uuid::now_v7())
    .bind(authorization.payer.as_slice())
    .bind(authorization.valid_before.to_string())
    .bind(authorization.nonce.as_bytes().as_slice())
    .bind(signature_in(&payment).to_bytes())
    .bind(
        authorization_digest(
            world.services.chain.chain_id,
            world.services.chain.usdc,
            &domain(&world),
            &authorization,
        )
        .as_slice(),
    )
    .bind(number - 1)
    .execute(&world.books)
    .await
    .unwrap();
    assert_eq!(inserted.rows_affected(), 1);

    // The wallet sends it, the token reverts, and the search for logs finds who was first.
    world.until("select count(*) from settlement where status = 'included'", 2).await;
    let found: Vec<u8> =
        sqlx::query_scalar("select transaction_hash from evidence where not by_us")
            .fetch_one(&world.books)
            .await
            .unwrap();
    assert_eq!(found, theirs.to_vec());
    assert_eq!(world.payee_balance().await, 10_005);
    service.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_that_was_spent_on_another_payee_or_cancelled_is_a_proven_failure() {
    let world = World::stepped().await;
    let (proxy, service) = slow_service(&world).await;
    for (is_cancelled, n) in [(true, 1), (false, 2)] {
        let authorization = world.authorization(0, 10_000);
        let payment = world.buyer(0).request(&authorization).unwrap();
        let asked = settle_in_background(&service, &payment);
        world.until("select count(*) from attempt where sent_answer is not null", n).await;
        let data = if is_cancelled {
            cancellation(&world, 0, &authorization)
        } else {
            let elsewhere = Authorization { payee: Address::repeat_byte(7), ..authorization };
            let chain = &world.services.chain;
            let digest =
                authorization_digest(chain.chain_id, chain.usdc, &domain(&world), &elsewhere);
            transfer_calldata(&elsewhere, &sign(&world, 0, digest)).to_vec()
        };
        let theirs = stranger_sends(&world, &data).await;
        world.node.mine(1).await;
        let receipt =
            world.node.receipt(theirs).await.expect("the stranger's transaction is mined");
        assert_eq!(receipt["status"], "0x1", "cancelled {is_cancelled}: {receipt}");
        let answer = asked.await.unwrap().expect("an answer");
        assert_eq!(answer["success"], false, "{answer}");
        assert_eq!(answer["errorReason"], "invalid_exact_evm_nonce_already_used", "{answer}");
    }
    let_through(&world, &proxy, 2).await;
    assert_eq!(world.payee_balance().await, 0);
    assert_eq!(
        world
            .count("select count(*) from ledger_entry where subject = 'payment' and kind = 'void'")
            .await,
        2
    );
    world.check_books().await;
    service.stop().await;
    world.stop().await;
}
