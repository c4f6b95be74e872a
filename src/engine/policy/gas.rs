//! How much gas a transaction may use: by formula, never by `eth_estimateGas`, which finds the least
//! gas at which a call that tolerates failing items still succeeds, and so leaves items unpaid
//! (settlement-engine reference, scenario 27).

use alloy::primitives::U256;

use crate::chain::FeeFacts;

use super::fees::{FeeLimits, Fees, FeesTooHigh, offer};

/// The most gas one transaction may have (EIP-7825; Base since Azul).
pub(in crate::engine) const TRANSACTION_GAS_MAX: u64 = 16_777_216;
/// The longest transaction that pools take (geth `txMaxSize`).
pub(in crate::engine) const TRANSACTION_BYTES_MAX: usize = 128 * 1024;
/// What one item of a batch may use. USDC needs 82,000 to a payee that never held it
/// (contracts/gas-table.json); an item that needs more fails there and is retried alone.
pub(in crate::engine) const ITEM_GAS_CAP: u64 = 120_000;

/// Every transaction's own cost.
const INTRINSIC_GAS: u64 = 21_000;
/// What the settler does once, with room for several tokens.
const BATCH_GAS: u64 = 45_000;
/// What it does for each item and keeps for its report, with room (contracts/README.md: 2,500).
const ITEM_GAS: u64 = 4_000;
/// What the creation of a contract costs, and for each byte of its code (yellow paper, appendix G).
const CREATE_GAS: u64 = 32_000;
const CODE_BYTE_GAS: u64 = 200;
/// For the deployer's own work and the constructor.
const DEPLOY_GAS: u64 = 60_000;

/// What a byte of calldata costs at most (EIP-7623).
const BYTE_GAS_MAX: u64 = 40;

/// What calldata costs: the larger of the price that execution is added to and the floor
/// (EIP-2028, EIP-7623).
pub(in crate::engine) fn calldata_gas(data: &[u8]) -> u64 {
    let n_zero = data.iter().filter(|byte| **byte == 0).count();
    let n_other = data.len().saturating_sub(n_zero);
    let (n_zero, n_other) = (wide(n_zero), wide(n_other));
    n_zero.saturating_mul(10).saturating_add(n_other.saturating_mul(BYTE_GAS_MAX))
}

/// What an item whose payer's code runs may use: what it used when it was verified, a quarter more, and
/// room for a payee that never held the token. A wallet that lies to the simulation costs no more than
/// what it showed.
pub(in crate::engine) fn code_gas_cap(simulated_gas: u64) -> u64 {
    simulated_gas.saturating_add(simulated_gas / 4).saturating_add(30_000)
}

/// What a payment's calldata costs beside its signature's: nine words, few of whose bytes are zero.
const PAYMENT_CALLDATA_GAS: u64 = 5_000;
/// What a byte of a longer signature costs (EIP-2028).
const BYTE_GAS: u64 = 16;

/// What a payment is expected to use that travels alone, by what its call used when it was simulated. In
/// company it uses less.
pub(in crate::engine) fn payment_gas(simulated_gas: u64, n_signature_bytes: usize) -> u64 {
    let simulated_gas = if simulated_gas == 0 { ITEM_GAS_CAP } else { simulated_gas };
    INTRINSIC_GAS
        .saturating_add(PAYMENT_CALLDATA_GAS)
        .saturating_add(wide(n_signature_bytes).saturating_mul(BYTE_GAS))
        .saturating_add(simulated_gas)
}

/// The gas limit of a lone call with that calldata, which may use `gas_cap`.
pub(in crate::engine) fn call_gas_limit(data: &[u8], gas_cap: u64) -> u64 {
    INTRINSIC_GAS.saturating_add(calldata_gas(data)).saturating_add(gas_cap)
}

/// The gas of a batch's limit that an item of `n_bytes` takes at most.
pub(in crate::engine) fn item_gas(gas_cap: u64, n_bytes: usize) -> u64 {
    // As if no byte were zero: a payer chooses its signature, and a batch that has to ask for more than
    // a transaction may have is never mined.
    gas_cap.saturating_add(ITEM_GAS).saturating_add(wide(n_bytes).saturating_mul(BYTE_GAS_MAX))
}

/// The gas limit of a batch of items with those caps and that calldata.
pub(in crate::engine) fn batch_gas_limit(data: &[u8], gas_caps: &[u64]) -> u64 {
    let items =
        gas_caps.iter().map(|cap| cap.saturating_add(ITEM_GAS)).fold(0, u64::saturating_add);
    // A call gets at most all but a sixty-fourth of what is left (EIP-150).
    let withheld = gas_caps.iter().max().copied().unwrap_or(0) / 63;
    INTRINSIC_GAS
        .saturating_add(calldata_gas(data))
        .saturating_add(BATCH_GAS)
        .saturating_add(items)
        .saturating_add(withheld)
}

/// The gas limit of a deployment with that calldata.
pub(in crate::engine) fn deploy_gas_limit(data: &[u8]) -> u64 {
    INTRINSIC_GAS
        .saturating_add(calldata_gas(data))
        .saturating_add(CREATE_GAS)
        .saturating_add(DEPLOY_GAS)
        .saturating_add(wide(data.len()).saturating_mul(CODE_BYTE_GAS))
}

/// The gas limit of a transaction that only uses up its account nonce.
pub(in crate::engine) const CANCEL_GAS_LIMIT: u64 = INTRINSIC_GAS;

/// How many transactions of the most gas a balance pays for at their highest price.
pub(in crate::engine) fn full_transactions(balance_wei: U256, fees: Fees) -> U256 {
    let price = U256::from(TRANSACTION_GAS_MAX).saturating_mul(U256::from(fees.fee_wei_max));
    balance_wei.checked_div(price).unwrap_or(U256::MAX)
}

/// How many full transactions a balance pays for at what is offered now.
///
/// # Errors
/// When nothing is offered, because the chain asks too much.
pub fn transactions_left(
    balance_wei: U256,
    market: FeeFacts,
    limits: FeeLimits,
) -> Result<U256, FeesTooHigh> {
    Ok(full_transactions(balance_wei, offer(market, limits)?))
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
