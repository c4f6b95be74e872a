//! What a token says of itself, asked once and remembered.

use std::{sync::Arc, time::Duration};

use alloy::{
    eips::BlockId,
    primitives::{Address, B256, Bytes, TxKind, U64},
    rpc::{
        client::{BatchRequest, Waiter},
        types::TransactionRequest,
    },
    sol_types::SolCall,
    transports::{RpcError, TransportErrorKind},
};
use moka::future::Cache;

use super::{
    Chain, ChainError, TRANSFER_GAS_LIMIT,
    endpoints::Endpoint,
    error::{ChainErrorKind, execution_failure},
    token::Token,
};

/// How many assets are remembered.
pub(super) const N_ASSETS_MAX: u64 = 10_000;
/// For how long: a token behind a proxy may be upgraded.
pub(super) const ASSET_TTL: Duration = Duration::from_secs(600);

/// What a token says of itself. What it does not answer is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asset {
    /// Whether there is a contract at all.
    pub has_code: bool,
    /// `name()`.
    pub name: Option<String>,
    /// `version()`.
    pub version: Option<String>,
    /// `decimals()`.
    pub decimals: Option<u8>,
    /// `DOMAIN_SEPARATOR()`.
    pub domain_separator: Option<B256>,
}

type CallAnswer = Result<Bytes, RpcError<TransportErrorKind>>;

/// The assets that were asked about.
#[derive(Debug, Clone)]
pub(super) struct Assets(Cache<Address, Arc<Asset>>);

impl Default for Assets {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(N_ASSETS_MAX).time_to_live(ASSET_TTL).build())
    }
}

impl Chain {
    /// What the token at `address` says of itself.
    pub async fn asset(&self, address: Address) -> Result<Arc<Asset>, Arc<ChainError>> {
        // Asked with every payment; the way below locks, and waits for who asks already.
        if let Some(known) = self.assets.0.get(&address).await {
            return Ok(known);
        }
        let known = self.assets.0.try_get_with(address, async {
            let operation = || format!("ask {address} who it is");
            let asset = self
                .ask(operation, |endpoint| async move { endpoint.describe(address).await })
                .await?;
            Ok::<_, ChainError>(Arc::new(asset))
        });
        let asset = known.await?;
        if !asset.has_code {
            // It may be deployed with the next block.
            self.assets.0.invalidate(&address).await;
        }
        Ok(asset)
    }
}

impl Endpoint {
    async fn describe(&self, asset: Address) -> Result<Asset, ChainErrorKind> {
        let failed = ChainErrorKind::of_call;
        self.count("quittance_rpc_calls_total", "asset");
        let mut batch = self.rpc.new_batch();
        // An endpoint of another chain would answer too, and of another contract.
        let chain_id: Waiter<U64> = batch.add_call("eth_chainId", &()).map_err(failed)?;
        let code: Waiter<Bytes> =
            batch.add_call("eth_getCode", &(asset, BlockId::latest())).map_err(failed)?;
        let mut ask = |data: Vec<u8>| add_call(&mut batch, asset, data.into()).map_err(failed);
        let name = ask(Token::nameCall {}.abi_encode())?;
        let version = ask(Token::versionCall {}.abi_encode())?;
        let decimals = ask(Token::decimalsCall {}.abi_encode())?;
        let separator = ask(Token::DOMAIN_SEPARATORCall {}.abi_encode())?;
        batch.send().await.map_err(failed)?;
        self.expect_chain(chain_id.await.map_err(failed)?.to())?;
        Ok(Asset {
            has_code: !code.await.map_err(failed)?.is_empty(),
            name: view::<Token::nameCall>(name.await)?,
            version: view::<Token::versionCall>(version.await)?,
            decimals: view::<Token::decimalsCall>(decimals.await)?,
            domain_separator: view::<Token::DOMAIN_SEPARATORCall>(separator.await)?,
        })
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

fn add_call(
    batch: &mut BatchRequest<'_>,
    to: Address,
    data: Bytes,
) -> Result<Waiter<Bytes>, RpcError<TransportErrorKind>> {
    let request = TransactionRequest {
        to: Some(TxKind::Call(to)),
        gas: Some(TRANSFER_GAS_LIMIT),
        input: data.into(),
        ..TransactionRequest::default()
    };
    batch.add_call("eth_call", &(request, BlockId::latest()))
}
