//! What transactions do: the token's rule that each authorization is used once, and the carriers'
//! rule that each item of a batch succeeds or fails by itself.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, Bytes, U256, address, keccak256};

use crate::{
    chain::{Block, Log, Receipt},
    domain::{Amount, Authorization, AuthorizationNonce, UnixTime},
    verify::{ChainSnapshot, Simulation},
};

use super::chain::Envelope;

/// The token that everything is paid in.
pub(super) const ASSET: Address = address!("833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
pub(super) const TOKEN_NAME: &str = "USD Coin";
pub(super) const TOKEN_VERSION: &str = "2";

/// What a transaction asks of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// `transferWithAuthorization`.
    Transfer(Authorization),
    /// `cancelAuthorization`.
    Cancel(Address, AuthorizationNonce),
    /// The payer spends everything elsewhere, or is paid again.
    SetPoor(Address, bool),
}

/// What the chain remembers.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) account_nonces: BTreeMap<Address, u64>,
    /// Authorizations that were used or cancelled, and which of them paid whom how much.
    used: BTreeMap<(Address, AuthorizationNonce), Option<(Address, Amount)>>,
    /// Payers without money.
    poor: BTreeSet<Address>,
}

impl State {
    pub(super) fn account_nonce(&self, address: Address) -> u64 {
        self.account_nonces.get(&address).copied().unwrap_or(0)
    }

    /// Whether exactly that payment was made.
    pub(super) fn has_paid(&self, authorization: &Authorization) -> bool {
        let made = self.used.get(&(authorization.payer, authorization.nonce));
        made == Some(&Some((authorization.payee, authorization.amount)))
    }

    /// Whether nothing that is mined at `time` can make that payment, now or later, as far as this
    /// block shows.
    pub(super) fn refuses(&self, authorization: &Authorization, time: UnixTime) -> bool {
        let made = self.used.contains_key(&(authorization.payer, authorization.nonce));
        (made && !self.has_paid(authorization))
            || time.as_u256() >= authorization.valid_before
            || self.poor.contains(&authorization.payer)
    }

    pub(super) fn snapshot(&self, block: &Block, authorization: &Authorization) -> ChainSnapshot {
        let simulated = self.clone().call(Call::Transfer(*authorization), block.timestamp);
        let is_poor = self.poor.contains(&authorization.payer);
        ChainSnapshot {
            block_number: block.number,
            block_time: block.timestamp,
            payer_has_code: false,
            asset_has_code: true,
            simulation: match simulated {
                Ok(_) => Simulation::Succeeds { gas_used: 80_000 },
                Err(why) => Simulation::Reverts(why.to_owned()),
            },
            signature_accepted: false,
            authorization_used: Some(
                self.used.contains_key(&(authorization.payer, authorization.nonce)),
            ),
            token_name: Some(TOKEN_NAME.to_owned()),
            token_version: Some(TOKEN_VERSION.to_owned()),
            domain_separator: None,
            balance: Some(if is_poor { Amount::ZERO } else { authorization.amount }),
        }
    }

    /// Which of `calls` succeed, each as if it were the only one.
    pub(super) fn try_calls(&self, calls: &[Call], time: UnixTime) -> Vec<bool> {
        calls.iter().map(|call| self.clone().call(*call, time).is_ok()).collect()
    }

    fn call(
        &mut self,
        call: Call,
        time: UnixTime,
    ) -> Result<Vec<(Vec<B256>, Bytes)>, &'static str> {
        match call {
            Call::Transfer(authorization) => self.transfer(&authorization, time),
            Call::Cancel(payer, nonce) => {
                if self.used.contains_key(&(payer, nonce)) {
                    return Err("authorization is used or canceled");
                }
                self.used.insert((payer, nonce), None);
                let event = keccak256("AuthorizationCanceled(address,bytes32)");
                Ok(vec![(vec![event, payer.into_word(), *nonce.as_bytes()], Bytes::new())])
            }
            Call::SetPoor(payer, is_poor) => {
                if is_poor {
                    self.poor.insert(payer);
                } else {
                    self.poor.remove(&payer);
                }
                Ok(Vec::new())
            }
        }
    }

    fn transfer(
        &mut self,
        authorization: &Authorization,
        time: UnixTime,
    ) -> Result<Vec<(Vec<B256>, Bytes)>, &'static str> {
        let Authorization { payer, payee, amount, valid_after, valid_before, nonce } =
            *authorization;
        if time.as_u256() <= valid_after {
            return Err("authorization is not yet valid");
        }
        if time.as_u256() >= valid_before {
            return Err("authorization is expired");
        }
        if self.used.contains_key(&(payer, nonce)) {
            return Err("authorization is used or canceled");
        }
        if self.poor.contains(&payer) {
            return Err("transfer amount exceeds balance");
        }
        self.used.insert((payer, nonce), Some((payee, amount)));
        let used = vec![
            keccak256("AuthorizationUsed(address,bytes32)"),
            payer.into_word(),
            *nonce.as_bytes(),
        ];
        let transfer = vec![
            keccak256("Transfer(address,address,uint256)"),
            payer.into_word(),
            payee.into_word(),
        ];
        let data = Bytes::from(amount.base_units().to_be_bytes_vec());
        Ok(vec![(used, Bytes::new()), (transfer, data)])
    }
}

/// Runs a transaction. One call that fails reverts it; of several each fails alone, unless one of
/// them is spoilt.
pub(super) fn execute(
    state: &mut State,
    envelope: &Envelope,
    block: &Block,
    n_logs_before: usize,
) -> Receipt {
    *state.account_nonces.entry(envelope.sender).or_default() += 1;
    let is_spoilt = envelope.calls.len() > 1
        && envelope.calls.iter().any(|call| match call {
            Call::Transfer(authorization) => is_spoiler(authorization),
            Call::Cancel(..) | Call::SetPoor(..) => false,
        });
    let outcomes: Vec<_> = match is_spoilt {
        true => vec![Err("out of gas")],
        false => envelope.calls.iter().map(|call| state.call(*call, block.timestamp)).collect(),
    };
    let succeeded = !is_spoilt && (outcomes.len() != 1 || outcomes.iter().all(Result::is_ok));
    let gas_used = envelope.gas_limit / 2;
    let logs = outcomes.into_iter().filter_map(Result::ok).flatten().enumerate();
    let price = block.base_fee_wei.unwrap_or(0) + envelope.fees.priority_fee_wei_max;
    let price = price.min(envelope.fees.fee_wei_max);
    Receipt {
        transaction_hash: envelope.hash,
        block_hash: block.hash,
        block_number: block.number,
        succeeded,
        fee_wei: U256::from(gas_used) * U256::from(price),
        gas_used,
        l1_fee_wei: U256::ZERO,
        logs: logs
            .map(|(index, (topics, data))| Log {
                address: ASSET,
                topics,
                data,
                log_index: u64::try_from(n_logs_before + index).expect("blocks are small"),
                transaction_hash: envelope.hash,
                block_hash: block.hash,
                block_number: block.number,
            })
            .collect(),
    }
}

/// An amount that a spoiler's authorization is known by: alone it is paid like any other, in company
/// it burns the gas of all.
pub(super) const SPOILING_AMOUNT: u64 = 666;

fn is_spoiler(authorization: &Authorization) -> bool {
    authorization.amount == Amount::from_base_units(U256::from(SPOILING_AMOUNT))
}
