//! Everything verification asks of a chain, at one block: one batch for a payment that can be made,
//! and another for why it cannot.

use alloy::{
    eips::BlockId,
    primitives::{Address, Bytes, TxKind, U64},
    rpc::{
        client::{BatchRequest, Waiter},
        types::TransactionRequest,
    },
    sol_types::SolCall,
    transports::{RpcError, TransportErrorKind},
};

use crate::{
    domain::{Amount, Authorization},
    verify::{ChainSnapshot, EcdsaSignature, Simulation},
};

use super::{
    Block, Chain, ChainError, TRANSFER_GAS_LIMIT,
    endpoints::Endpoint,
    error::{ChainErrorKind, execution_failure},
    token::{Token, transfer_calldata},
};

type CallAnswer = Result<Bytes, RpcError<TransportErrorKind>>;

impl Chain {
    /// What `block` says about one payment, every fact at that block's hash.
    ///
    /// An answer of the token, a revert included, is a fact; trouble with the endpoint is an error.
    pub async fn snapshot(
        &self,
        block: &Block,
        asset: Address,
        authorization: &Authorization,
        signature: &EcdsaSignature,
    ) -> Result<ChainSnapshot, ChainError> {
        let operation = || format!("read what block {} says of a payment", block.number);
        self.ask(operation, |endpoint| async move {
            endpoint.snapshot(block, asset, authorization, signature).await
        })
        .await
    }
}

impl Endpoint {
    async fn snapshot(
        &self,
        block: &Block,
        asset: Address,
        authorization: &Authorization,
        signature: &EcdsaSignature,
    ) -> Result<ChainSnapshot, ChainErrorKind> {
        let failed = ChainErrorKind::of_call;
        self.count("quittance_rpc_calls_total", "snapshot");
        let at = BlockId::hash(block.hash);
        let mut batch = self.rpc.new_batch();
        // An endpoint of another chain would answer everything below, and each answer would read like
        // a verdict: no contract, no balance, not the payer's signature.
        let chain_id: Waiter<U64> = batch.add_call("eth_chainId", &()).map_err(failed)?;
        let payer_code = add_code(&mut batch, authorization.payer, at).map_err(failed)?;
        let asset_code = add_code(&mut batch, asset, at).map_err(failed)?;
        let mut ask = |data: Vec<u8>| add_call(&mut batch, asset, data.into(), at).map_err(failed);
        let simulation = ask(transfer_calldata(authorization, signature).into())?;
        let state = ask(Token::authorizationStateCall {
            authorizer: authorization.payer,
            nonce: *authorization.nonce.as_bytes(),
        }
        .abi_encode())?;
        batch.send().await.map_err(failed)?;
        self.expect_chain(chain_id.await.map_err(failed)?)?;

        let simulation = match simulation.await {
            Ok(_) => Simulation::Succeeds,
            Err(error) => match execution_failure(&error) {
                Some(reason) => Simulation::Reverts(reason),
                None => return Err(failed(error)),
            },
        };
        let mut snapshot = ChainSnapshot {
            block_number: block.number,
            block_hash: block.hash,
            payer_has_code: !payer_code.await.map_err(failed)?.is_empty(),
            asset_has_code: !asset_code.await.map_err(failed)?.is_empty(),
            simulation,
            authorization_used: view::<Token::authorizationStateCall>(state.await)?,
            token_name: None,
            token_version: None,
            balance: None,
        };
        if !snapshot.shows_payment() || signature.has_high_s() {
            self.diagnose(&mut snapshot, at, asset, authorization).await?;
        }
        Ok(snapshot)
    }

    /// Asks what explains a refusal.
    async fn diagnose(
        &self,
        snapshot: &mut ChainSnapshot,
        at: BlockId,
        asset: Address,
        authorization: &Authorization,
    ) -> Result<(), ChainErrorKind> {
        let failed = ChainErrorKind::of_call;
        let mut batch = self.rpc.new_batch();
        let mut ask = |data: Vec<u8>| add_call(&mut batch, asset, data.into(), at).map_err(failed);
        let name = ask(Token::nameCall {}.abi_encode())?;
        let version = ask(Token::versionCall {}.abi_encode())?;
        let balance = ask(Token::balanceOfCall { account: authorization.payer }.abi_encode())?;
        batch.send().await.map_err(failed)?;
        snapshot.token_name = view::<Token::nameCall>(name.await)?;
        snapshot.token_version = view::<Token::versionCall>(version.await)?;
        let balance = view::<Token::balanceOfCall>(balance.await)?;
        snapshot.balance = balance.map(Amount::from_base_units);
        Ok(())
    }
}

/// The decoded answer of a view; `None` if the contract does not give one.
fn view<Call: SolCall>(answer: CallAnswer) -> Result<Option<Call::Return>, ChainErrorKind> {
    match answer {
        Ok(bytes) => Ok(Call::abi_decode_returns(&bytes).ok()),
        Err(error) if execution_failure(&error).is_some() => Ok(None),
        Err(error) => Err(ChainErrorKind::of_call(error)),
    }
}

fn add_code(
    batch: &mut BatchRequest<'_>,
    address: Address,
    at: BlockId,
) -> Result<Waiter<Bytes>, RpcError<TransportErrorKind>> {
    batch.add_call("eth_getCode", &(address, at))
}

fn add_call(
    batch: &mut BatchRequest<'_>,
    to: Address,
    data: Bytes,
    at: BlockId,
) -> Result<Waiter<Bytes>, RpcError<TransportErrorKind>> {
    let request = TransactionRequest {
        to: Some(TxKind::Call(to)),
        gas: Some(TRANSFER_GAS_LIMIT),
        input: data.into(),
        ..TransactionRequest::default()
    };
    batch.add_call("eth_call", &(request, at))
}
