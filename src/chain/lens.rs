//! What one block says of many payments, in one `eth_call` (contracts/src/VerificationLens.sol).
//!
//! The lens is never deployed. A state override places its code for the length of the call; where an
//! endpoint knows no overrides, creation code brings it along, in shorter lists.

use std::{
    fmt,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy::{
    eips::BlockId,
    primitives::{Address, B256, Bytes, TxKind, U256, address},
    rpc::types::TransactionRequest,
    sol,
    sol_types::SolCall,
    transports::{RpcError, TransportErrorKind},
};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::{
    domain::{Amount, Authorization, UnixTime},
    verify::{ChainSnapshot, Consent, Simulation, Terms},
};

use super::{
    Chain, ChainError, TRANSFER_GAS_LIMIT,
    endpoints::Endpoint,
    error::{ChainErrorKind, is_too_many_calls, revert_text},
};

sol!(VerificationLens, "contracts/artifacts/VerificationLens.json");
use VerificationLens as Lens;

/// The same lens as creation code. A module of its own, because it names the same structs.
mod by_creation {
    alloy::sol!(LensByCreation, "contracts/artifacts/LensByCreation.json");
}

/// How many payments one call looks at. The reference measured 9,200 simulations a second in lists of a
/// hundred and 708 one by one; longer lists gain little and are refused by some endpoints.
pub const LENS_LIST_MAX: usize = 100;
/// How many fit into creation code: it may not pass 49,152 bytes (EIP-3860), nor its answer 24,576
/// (EIP-170).
const CREATION_LIST_MAX: usize = 32;
/// The gas of a payment whose payer's code judges the signature: a passkey checked in Solidity takes
/// 300,000.
pub const CONTRACT_GAS_LIMIT: u64 = 500_000;
/// The gas of such a payment along with the deployment of the payer's wallet.
pub const DEPLOYMENT_GAS_LIMIT: u64 = 1_000_000;
/// What a transaction costs before its call runs: 21,000, and its calldata.
pub(super) const LONE_CALL_GAS: u64 = 30_000;
/// What endpoints give a call at most, if they are not told otherwise (geth and reth `rpc.gascap`).
const CALL_GAS_MAX: u64 = 50_000_000;
/// What a call takes besides its payments, with room for a payer that turns out to have code.
const CALL_GAS: u64 = 2_000_000;
/// What the lens itself takes for a payment, and a token that burns what it is asked with.
const PAYMENT_GAS: u64 = 200_000;
/// What it takes to create the lens, and to return an answer as code (200 a byte).
const CREATION_GAS: u64 = 7_000_000;
/// How long the refusal of an endpoint is believed, where others can tell.
const REFUSAL_BELIEVED: Duration = Duration::from_secs(10);
/// How long it is believed that an endpoint takes less than others.
const REDUCED_BELIEVED: Duration = Duration::from_secs(600);
/// Where the override puts the lens; nobody has the key, and nothing is there.
pub(super) const LENS_ADDRESS: Address = address!("71c3e00000000000000000000000000000001e55");

/// The third parameter of `eth_call`.
static OVERRIDES: LazyLock<Box<RawValue>> = LazyLock::new(|| {
    let code = &Lens::DEPLOYED_BYTECODE;
    RawValue::from_string(format!("{{\"{LENS_ADDRESS}\":{{\"code\":\"{code}\"}}}}"))
        .expect("it is JSON")
});

/// One payment to look at.
#[derive(Debug, Clone)]
pub struct Question {
    asset: Address,
    authorization: Authorization,
    digest: B256,
    consent: Consent,
}

impl Question {
    /// About `authorization` of `asset`, whose EIP-712 digest is `digest`.
    pub const fn new(
        asset: Address,
        authorization: Authorization,
        digest: B256,
        consent: Consent,
    ) -> Self {
        Self { asset, authorization, digest, consent }
    }

    /// About a payment with those terms.
    pub fn of(terms: &Terms) -> Self {
        let asset = terms.requirements().asset;
        Self::new(asset, *terms.authorization(), terms.digest(), terms.consent().clone())
    }

    /// The token.
    pub const fn asset(&self) -> Address {
        self.asset
    }

    /// What was authorized.
    pub const fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    fn encoded(&self) -> Lens::Payment {
        let authorization = &self.authorization;
        let deployment = self.consent.deployment();
        Lens::Payment {
            asset: self.asset,
            payer: authorization.payer,
            payee: authorization.payee,
            amount: authorization.amount.base_units(),
            validAfter: authorization.valid_after,
            validBefore: authorization.valid_before,
            nonce: *authorization.nonce.as_bytes(),
            digest: self.digest,
            signature: self.consent.signature(),
            isSignedByKey: matches!(self.consent, Consent::Key(_)),
            factory: deployment.map_or(Address::ZERO, |deployment| deployment.factory),
            factoryData: deployment
                .map(|deployment| deployment.calldata.clone())
                .unwrap_or_default(),
        }
    }
}

/// How an endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LensMode {
    /// By a state override.
    Override {
        /// How many payments it takes in a call.
        n_payments_max: usize,
    },
    /// By creation code: it takes no overrides.
    Creation {
        /// How many payments it takes in a call.
        n_payments_max: usize,
    },
}

impl LensMode {
    /// What most endpoints take.
    const FULL: Self = Self::Override { n_payments_max: LENS_LIST_MAX };

    /// The same with creation code.
    const FULL_BY_CREATION: Self = Self::Creation { n_payments_max: CREATION_LIST_MAX };

    const fn n_payments_max(self) -> usize {
        match self {
            Self::Override { n_payments_max } | Self::Creation { n_payments_max } => n_payments_max,
        }
    }

    const fn with(self, n_payments_max: usize) -> Self {
        match self {
            Self::Override { .. } => Self::Override { n_payments_max },
            Self::Creation { .. } => Self::Creation { n_payments_max },
        }
    }
}

impl fmt::Display for LensMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self {
            Self::Override { .. } => "state override",
            Self::Creation { .. } => "creation code",
        };
        write!(f, "{} payments a call by {way}", self.n_payments_max())
    }
}

/// What is known of how an endpoint is asked.
#[derive(Debug, Default)]
pub(super) struct LensState(Mutex<Option<Tried>>);

/// How it went when it was tried.
#[derive(Debug, Clone)]
struct Tried {
    /// The mode, or why there is none.
    found: Result<LensMode, String>,
    at: Instant,
}

impl Tried {
    /// Whether an endpoint that takes less than it could is to be tried again: it may have been upgraded,
    /// or have had a bad moment.
    fn is_due(&self) -> bool {
        let believed = match self.found {
            Ok(LensMode::FULL) => return false,
            Ok(_) => REDUCED_BELIEVED,
            Err(_) => REFUSAL_BELIEVED,
        };
        self.at.elapsed() >= believed
    }
}

impl LensState {
    fn known(&self) -> Option<Tried> {
        self.lock().clone()
    }

    /// Remembers, and reports what was known before.
    fn set(&self, found: Result<LensMode, String>) -> Option<Result<LensMode, String>> {
        let tried = Tried { found, at: Instant::now() };
        self.lock().replace(tried).map(|before| before.found)
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tried>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chain {
    /// What the newest block, or the block `at`, says of each payment, in their order. A list that one call
    /// cannot answer takes several, which may see different blocks. What the token says of itself is left
    /// open; see [`Chain::asset`].
    ///
    /// What the EVM says of a payment, a revert included, is a fact; trouble with the endpoint is an error.
    pub async fn look(
        &self,
        questions: &[Question],
        at: impl Into<BlockId>,
    ) -> Result<Vec<ChainSnapshot>, ChainError> {
        let at: BlockId = at.into();
        let started_at = Instant::now();
        match self.look_once(questions, at).await {
            // Nobody else can tell, so those that refused before are tried again now.
            Err(error)
                if matches!(error.source, ChainErrorKind::NoLens(_))
                    && self.forget_refusals_before(started_at) =>
            {
                self.look_once(questions, at).await
            }
            looked => looked,
        }
    }

    async fn look_once(
        &self,
        questions: &[Question],
        at: BlockId,
    ) -> Result<Vec<ChainSnapshot>, ChainError> {
        let endpoints = &self.endpoints;
        let operation = || format!("look at {} payments", questions.len());
        self.ask(operation, |endpoint| async move {
            let sights = endpoint.look(questions, at).await?;
            let newest = sights.iter().max_by_key(|sight| sight.block_number);
            if let Some(newest) = newest.filter(|_| at.is_latest()) {
                endpoints.note_head(&endpoint, newest.block_number, newest.block_time);
            }
            Ok(sights)
        })
        .await
    }

    /// Whether there was one.
    fn forget_refusals_before(&self, time: Instant) -> bool {
        let refused = self.endpoints.list.iter().filter(|endpoint| {
            endpoint.lens.known().is_some_and(|tried| tried.found.is_err() && tried.at < time)
        });
        refused.inspect(|endpoint| endpoint.lens.forget()).count() > 0
    }
}

impl Endpoint {
    async fn look(
        &self,
        questions: &[Question],
        at: BlockId,
    ) -> Result<Vec<ChainSnapshot>, ChainErrorKind> {
        let mut sights = Vec::with_capacity(questions.len());
        let mut rest: Vec<Lens::Payment> = questions.iter().map(Question::encoded).collect();
        let mut may_find_out = at.is_latest();
        while !rest.is_empty() {
            let mode = self.lens_mode().await?;
            let n_asked = rest.len().min(mode.n_payments_max());
            let later = rest.split_off(n_asked);
            let (asked, answer) = self.lens_call(mode, rest, at).await;
            rest = match answer {
                Ok(sight) => {
                    self.expect_chain(sight.chainId.saturating_to::<u64>())?;
                    if sight.facts.len() != n_asked {
                        let what = format!("{} of {n_asked} payments were seen", sight.facts.len());
                        return Err(ChainErrorKind::Unusable(what));
                    }
                    let n_seen = sight.facts.iter().take_while(|facts| facts.isSeen).count();
                    if n_seen == 0 {
                        let what = "it gives too little gas to look at one payment".to_owned();
                        return Err(ChainErrorKind::Unusable(what));
                    }
                    sights.extend(seen(&sight).take(n_seen));
                    asked.into_iter().skip(n_seen).chain(later).collect()
                }
                Err(error) if n_asked > 1 && at.is_latest() && is_answer(&error) => {
                    // What it takes now and then, it does not take.
                    self.note_lens(Ok(mode.with(n_asked / 2)));
                    asked.into_iter().chain(later).collect()
                }
                Err(error) if may_find_out && is_answer(&error) => {
                    // It is not the node that was asked first, or that one was changed: it may take the
                    // lens in another way.
                    may_find_out = false;
                    self.lens.forget();
                    asked.into_iter().chain(later).collect()
                }
                Err(error) => return Err(ChainErrorKind::of_call(error)),
            };
        }
        Ok(sights)
    }

    /// How the endpoint is asked, found out by the first call. One that refused is not tried again here,
    /// because that takes a dozen calls; see [`Endpoint::watch_lens`] and [`Chain::look`].
    pub(super) async fn lens_mode(&self) -> Result<LensMode, ChainErrorKind> {
        match self.lens.known() {
            Some(tried) => tried.found.map_err(ChainErrorKind::NoLens),
            None => self.try_lens().await,
        }
    }

    /// Finds out how the endpoint is asked if that is not known, or may have changed.
    pub(super) async fn watch_lens(&self) {
        if self.lens.known().is_none_or(|tried| tried.is_due()) {
            // What is in the way is told by whoever reads blocks.
            let _ = self.try_lens().await;
        }
    }

    async fn try_lens(&self) -> Result<LensMode, ChainErrorKind> {
        let mut refusal = None;
        for first in [LensMode::FULL, LensMode::FULL_BY_CREATION] {
            let mut n_payments = first.n_payments_max();
            while n_payments > 0 {
                let mode = first.with(n_payments);
                let (_, answer) =
                    self.lens_call(mode, vec![specimen(); n_payments], BlockId::latest()).await;
                match answer {
                    Ok(sight) if sight.facts.len() == n_payments => {
                        self.expect_chain(sight.chainId.saturating_to::<u64>())?;
                        self.note_lens(Ok(mode));
                        return Ok(mode);
                    }
                    Ok(_) => (),
                    Err(error) if is_answer(&error) => refusal = Some(error.to_string()),
                    Err(error) => return Err(ChainErrorKind::of_call(error)),
                }
                n_payments /= 2;
            }
        }
        let refusal = refusal.unwrap_or_else(|| "its answer is another's".to_owned());
        self.note_lens(Err(refusal.clone()));
        Err(ChainErrorKind::NoLens(refusal))
    }

    /// Remembers how the endpoint is asked, and tells if that is news and not as it should be.
    fn note_lens(&self, found: Result<LensMode, String>) {
        let before = self.lens.set(found.clone());
        self.tell_lens(found.as_ref().map_or(0, |mode| mode.n_payments_max()));
        let (chain, endpoint) = (self.chain_id, self.name);
        match (before, found) {
            (Some(Ok(before)), Ok(mode)) if before == mode => (),
            (None, Ok(LensMode::FULL)) => {
                tracing::debug!(chain.id = %chain, endpoint = %endpoint, "an endpoint takes the lens");
            }
            (_, Ok(LensMode::FULL)) => {
                tracing::info!(
                    chain.id = %chain, endpoint = %endpoint,
                    "an endpoint takes the lens as it should again"
                );
            }
            (_, Ok(mode)) => tracing::warn!(
                chain.id = %chain, endpoint = %endpoint,
                "an endpoint takes the lens with limits: it verifies {mode}"
            ),
            (Some(Err(_)), Err(_)) => (),
            (_, Err(refusal)) => tracing::error!(
                chain.id = %chain, endpoint = %endpoint, error = refusal,
                "an endpoint takes the verification lens neither way, and verifies nothing"
            ),
        }
    }

    /// One call. It gives the payments back.
    async fn lens_call(
        &self,
        mode: LensMode,
        payments: Vec<Lens::Payment>,
        at: BlockId,
    ) -> (Vec<Lens::Payment>, Result<Lens::Sight, RpcError<TransportErrorKind>>) {
        self.count("quittance_rpc_calls_total", "eth_call");
        let gas = Some(call_gas(mode, &payments));
        let call = Lens::lookCall { payments, limits: limits() };
        let answer: Result<Bytes, _> = match mode {
            LensMode::Override { .. } => {
                let request = TransactionRequest {
                    to: Some(TxKind::Call(LENS_ADDRESS)),
                    gas,
                    input: Bytes::from(call.abi_encode()).into(),
                    ..TransactionRequest::default()
                };
                self.rpc.request("eth_call", (request, at, &**OVERRIDES)).await
            }
            LensMode::Creation { .. } => {
                let look = call.abi_encode();
                // The constructor takes what `look` takes, without a selector.
                let arguments = look.get(4..).unwrap_or_default();
                let code = [by_creation::LensByCreation::BYTECODE.as_ref(), arguments].concat();
                let request = TransactionRequest {
                    gas,
                    input: Bytes::from(code).into(),
                    ..TransactionRequest::default()
                };
                self.rpc.request("eth_call", (request, at)).await
            }
        };
        if answer.is_err() {
            self.count("quittance_rpc_errors_total", "eth_call");
        }
        let sight = answer.and_then(|bytes| {
            Lens::lookCall::abi_decode_returns(&bytes)
                .map_err(|_| RpcError::UnsupportedFeature("the answer is not the lens's"))
        });
        (call.payments, sight)
    }
}

/// Whether the endpoint answered, and may answer otherwise if it is asked otherwise.
fn is_answer(error: &RpcError<TransportErrorKind>) -> bool {
    match error {
        // Too many calls say nothing about this one.
        RpcError::ErrorResp(refusal) => !is_too_many_calls(refusal),
        RpcError::UnsupportedFeature(_) => true,
        // Too long, or not understood.
        RpcError::Transport(TransportErrorKind::HttpError(error)) => {
            [400, 413, 422].contains(&error.status)
        }
        _ => false,
    }
}

fn limits() -> Lens::Limits {
    Lens::Limits {
        plainGas: U256::from(TRANSFER_GAS_LIMIT - LONE_CALL_GAS),
        contractGas: U256::from(CONTRACT_GAS_LIMIT),
        deployGas: U256::from(DEPLOYMENT_GAS_LIMIT),
    }
}

/// Named, because some nodes give no more than a block has. What is seen without its gas is asked again.
fn call_gas(mode: LensMode, payments: &[Lens::Payment]) -> u64 {
    let of_payment = |payment: &Lens::Payment| {
        PAYMENT_GAS.saturating_add(match (payment.isSignedByKey, payment.factory.is_zero()) {
            (true, _) => TRANSFER_GAS_LIMIT,
            (false, true) => 2 * CONTRACT_GAS_LIMIT,
            (false, false) => DEPLOYMENT_GAS_LIMIT + CONTRACT_GAS_LIMIT,
        })
    };
    let own = match mode {
        LensMode::Override { .. } => CALL_GAS,
        LensMode::Creation { .. } => CALL_GAS + CREATION_GAS,
    };
    payments.iter().map(of_payment).fold(own, u64::saturating_add).min(CALL_GAS_MAX)
}

/// A payment of nothing, as long as those of most payers.
fn specimen() -> Lens::Payment {
    Lens::Payment {
        asset: Address::ZERO,
        payer: Address::ZERO,
        payee: Address::ZERO,
        amount: U256::ZERO,
        validAfter: U256::ZERO,
        validBefore: U256::ZERO,
        nonce: B256::ZERO,
        digest: B256::ZERO,
        signature: Bytes::from_static(&[0; 65]),
        isSignedByKey: false,
        factory: Address::ZERO,
        factoryData: Bytes::new(),
    }
}

fn seen(sight: &Lens::Sight) -> impl Iterator<Item = ChainSnapshot> {
    let block_number = sight.blockNumber.saturating_to::<u64>();
    let block_time = UnixTime::from_seconds(sight.blockTimestamp.saturating_to::<u64>());
    sight.facts.iter().map(move |facts| ChainSnapshot {
        block_number,
        block_time,
        payer_has_code: !facts.payerCodeSize.is_zero(),
        asset_has_code: facts.assetHasCode,
        simulation: match (facts.wasTried, facts.succeeds) {
            (false, _) => Simulation::NotTried,
            (true, true) => Simulation::Succeeds { gas_used: facts.gasUsed.saturating_to::<u64>() },
            (true, false) => {
                Simulation::Reverts(revert_text(Some(&facts.revertData), "the call reverts"))
            }
        },
        signature_accepted: facts.signatureAccepted,
        authorization_used: match facts.authorizationState {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        },
        balance: facts.hasBalance.then(|| Amount::from_base_units(facts.balance)),
        token_name: None,
        token_version: None,
        domain_separator: None,
    })
}
