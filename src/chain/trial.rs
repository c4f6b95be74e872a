//! Whether a token's events can prove a payment: seen once for each asset, before the first payment of it
//! is promised.
//!
//! Only events move the books, so what a token does without them could be paid and never be told. The
//! settlement itself is simulated with its logs (`eth_simulateV1`), and these are judged as a receipt's
//! are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{Address, B256, Bytes, TxKind, U64, U256, address},
    rpc::types::TransactionRequest,
};
use moka::{Expiry, future::Cache};
use serde::Deserialize;
use serde_json::json;

use crate::verify::{Consent, Verified};

use super::{
    CONTRACT_GAS_LIMIT, Chain, ChainError, DEPLOYMENT_GAS_LIMIT, Log, Receipt, TRANSFER_GAS_LIMIT,
    asset::{ASSET_TTL, N_ASSETS_MAX},
    endpoints::{Endpoint, Failure},
    error::{ChainErrorKind, is_unknown_method, revert_text},
    lens::{LENS_ADDRESS, LONE_CALL_GAS},
    token::{missing_proof, payment_calls},
};

/// Tokens whose events are known (x402 reference 3.6 and 9): they are believed where no endpoint can
/// simulate. Circle's `FiatTokenV2_2`, all of them.
const WELL_KNOWN: [(u64, Address); 3] = [
    // USDC on Base.
    (8_453, address!("833589fcd6edb6e08f4c7c32d4f71b54bda02913")),
    // EURC on Base.
    (8_453, address!("60a3e35cc302bfa44cb288bc5a4f316fdb1adb42")),
    // USDC on Base Sepolia.
    (84_532, address!("036cbd53842c5426634e7929541ec2318f3dcf7e")),
];

/// What the events of an asset are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Testimony {
    /// They prove a payment.
    Proves,
    /// A payment would leave no proof: this is missing.
    Lacks(&'static str),
    /// No endpoint can tell, and the asset is not well known.
    Unheard,
}

/// Why there is no [`Testimony`].
#[derive(Debug)]
struct Mistrial {
    error: Arc<ChainError>,
    /// Whether it is the payment's: another payment of the asset may fare better.
    is_of_payment: bool,
}

/// What is known of assets' events.
#[derive(Debug, Clone)]
pub(super) struct Trials(Cache<Address, Testimony>);

impl Default for Trials {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(N_ASSETS_MAX).expire_after(Lifetime).build())
    }
}

/// What was found good stays so; a token that was refused may be mended, and so may an endpoint.
struct Lifetime;

impl Expiry<Address, Testimony> for Lifetime {
    fn expire_after_create(&self, _: &Address, found: &Testimony, _: Instant) -> Option<Duration> {
        match found {
            Testimony::Proves => None,
            Testimony::Lacks(_) | Testimony::Unheard => Some(ASSET_TTL),
        }
    }
}

impl Chain {
    /// What the events of the asset of `verified` are worth. The first payment of an asset is simulated
    /// for it, and those that come meanwhile wait.
    ///
    /// # Errors
    /// Trouble with the endpoints, also where they contradict the verdict on the payment.
    pub async fn testimony(&self, verified: &Verified) -> Result<Testimony, Arc<ChainError>> {
        let asset = verified.terms().requirements().asset;
        loop {
            if let Some(known) = self.trials.0.get(&asset).await {
                return Ok(known);
            }
            let is_own = AtomicBool::new(false);
            let tried = self.trials.0.try_get_with(asset, async {
                is_own.store(true, Ordering::Relaxed);
                self.try_out(verified).await
            });
            match tried.await {
                Ok(testimony) => return Ok(testimony),
                Err(mistrial) if mistrial.is_of_payment && !is_own.load(Ordering::Relaxed) => (),
                Err(mistrial) => return Err(Arc::clone(&mistrial.error)),
            }
        }
    }

    async fn try_out(&self, verified: &Verified) -> Result<Testimony, Mistrial> {
        let asset = verified.terms().requirements().asset;
        let operation = || format!("simulate a payment of {asset}");
        let calls = calls(verified);
        let is_well_known = WELL_KNOWN.contains(&(self.chain_id().eip155(), asset));
        let endpoints = &self.endpoints;
        let (patience, mut failure) = (endpoints.patience(), None::<Failure>);
        // All of them: that nobody can simulate is a verdict, and one may be set aside just now.
        for endpoint in endpoints.candidates_and_others() {
            if failure.is_some() && patience.is_over() {
                break;
            }
            let simulated = match endpoints.identify_if_new(&endpoint).await {
                Ok(()) => endpoints.note_outcome(&endpoint, endpoint.simulate(&calls).await),
                Err(source) => Err(source),
            };
            match simulated {
                Ok(Simulated::Ran(receipt)) => return Ok(self.heard(verified, &receipt)),
                Ok(Simulated::Reverts(word)) => {
                    let what = format!("the lens sees it succeed, and it reverts: {word}");
                    let error =
                        self.failed(operation(), (endpoint.name, ChainErrorKind::Unusable(what)));
                    return Err(Mistrial { error: Arc::new(error), is_of_payment: true });
                }
                Ok(Simulated::Unknown) if is_well_known => return Ok(Testimony::Proves),
                Ok(Simulated::Unknown) => (),
                // It has the method, and other parameters than those we know.
                Err(source) if is_well_known && !source.is_trouble() => {
                    return Ok(Testimony::Proves);
                }
                Err(source) => {
                    failure.get_or_insert((endpoint.name, source));
                }
            }
        }
        let Some(failure) = failure else {
            tracing::warn!(
                chain.id = %self.chain_id(), asset = %asset,
                "an asset is refused, because no endpoint has eth_simulateV1 to try it with"
            );
            return Ok(Testimony::Unheard);
        };
        let error = Arc::new(self.failed(operation(), failure));
        Err(Mistrial { error, is_of_payment: false })
    }

    fn heard(&self, verified: &Verified, receipt: &Receipt) -> Testimony {
        let (chain_id, asset) = (self.chain_id(), verified.terms().requirements().asset);
        let Some(missing) = missing_proof(receipt, asset, verified.terms().authorization()) else {
            tracing::info!(chain.id = %chain_id, asset = %asset, "an asset's events prove payments");
            return Testimony::Proves;
        };
        tracing::warn!(
            chain.id = %chain_id, asset = %asset, missing,
            "an asset is refused, because its events do not prove payments"
        );
        Testimony::Lacks(missing)
    }
}

/// How a simulation went.
enum Simulated {
    /// Not at all: the endpoint does not know the method.
    Unknown,
    /// The settlement reverts.
    Reverts(String),
    /// This is what it did.
    Ran(Receipt),
}

impl Endpoint {
    /// Whether it has the method, as far as can be seen.
    pub(super) async fn simulates(&self) -> bool {
        let nothing = TransactionRequest::default().to(LENS_ADDRESS);
        !matches!(self.simulate(&[nothing]).await, Ok(Simulated::Unknown))
    }

    async fn simulate(&self, calls: &[TransactionRequest]) -> Result<Simulated, ChainErrorKind> {
        let block = json!({ "blockStateCalls": [{ "calls": calls }] });
        let answer = self.call("eth_simulateV1", (block, BlockNumberOrTag::Latest)).await;
        let blocks: Vec<BlockReply> = match answer {
            Err(error) if is_unknown_method(&error) => return Ok(Simulated::Unknown),
            answer => answer?,
        };
        // An endpoint of another chain would answer too, and of another contract.
        let chain_id: U64 = self.call("eth_chainId", ()).await?;
        self.expect_chain(chain_id.to())?;
        let payment = blocks.into_iter().flat_map(|block| block.calls).nth(calls.len() - 1);
        let payment = payment.ok_or_else(|| {
            ChainErrorKind::Unusable("the simulation leaves the payment out".to_owned())
        })?;
        if payment.status != U64::from(1) {
            let word = revert_text(Some(&payment.return_data), "it does not say why");
            return Ok(Simulated::Reverts(word));
        }
        Ok(Simulated::Ran(payment.into()))
    }
}

/// The calls that the engine would make: the payment's is the last.
fn calls(verified: &Verified) -> Vec<TransactionRequest> {
    let (terms, asset) = (verified.terms(), verified.terms().requirements().asset);
    let consent = Consent::shown(verified.payer_kind(), terms.wire_signature());
    let call = |to: Address, data: Bytes, gas: u64| TransactionRequest {
        // Nobody's: tokens let anybody submit an authorization.
        from: Some(LENS_ADDRESS),
        to: Some(TxKind::Call(to)),
        gas: Some(gas),
        input: data.into(),
        ..TransactionRequest::default()
    };
    let paid = payment_calls(asset, terms.authorization(), &consent).into_iter();
    let calls = paid.map(|(to, data)| match &consent {
        Consent::Key(_) => call(to, data, TRANSFER_GAS_LIMIT),
        Consent::Contract(_) if to == asset => call(to, data, CONTRACT_GAS_LIMIT + LONE_CALL_GAS),
        Consent::Contract(_) => call(to, data, DEPLOYMENT_GAS_LIMIT + LONE_CALL_GAS),
    });
    calls.collect()
}

#[derive(Debug, Deserialize)]
struct BlockReply {
    calls: Vec<CallReply>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallReply {
    status: U64,
    #[serde(default)]
    return_data: Bytes,
    #[serde(default)]
    logs: Vec<LogReply>,
}

#[derive(Debug, Deserialize)]
struct LogReply {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
}

impl From<CallReply> for Receipt {
    fn from(reply: CallReply) -> Self {
        let logs = reply.logs.into_iter().zip(0_u64..).map(|(log, log_index)| Log {
            address: log.address,
            topics: log.topics,
            data: log.data,
            log_index,
            transaction_hash: B256::ZERO,
            block_hash: B256::ZERO,
            block_number: 0,
        });
        Self {
            transaction_hash: B256::ZERO,
            block_hash: B256::ZERO,
            block_number: 0,
            succeeded: reply.status == U64::from(1),
            fee_wei: U256::ZERO,
            gas_used: 0,
            l1_fee_wei: U256::ZERO,
            logs: logs.collect(),
        }
    }
}
