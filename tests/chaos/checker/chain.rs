//! Payments, as blocks tell of them.

use std::collections::{HashMap, HashSet};

use alloy::primitives::{Address, B256, U256, keccak256};

use crate::record::{Block, Identity, Log};

/// One executed authorization: the token's two logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) identity: Identity,
    pub(crate) payee: Address,
    pub(crate) amount: U256,
    pub(crate) transaction_hash: B256,
    pub(crate) block_hash: B256,
    pub(crate) log_index: u64,
}

/// The payments of some blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payments(HashMap<Identity, Vec<Payment>>);

impl Payments {
    pub(crate) fn read(blocks: &[Block], asset: Address) -> Self {
        let mut payments = Self::default();
        for block in blocks {
            for mined in &block.transactions {
                for pair in mined.logs.windows(2) {
                    let Some((identity, payee, amount)) = read(&pair[0], &pair[1], asset) else {
                        continue;
                    };
                    payments.0.entry(identity).or_default().push(Payment {
                        identity,
                        payee,
                        amount,
                        transaction_hash: mined.hash,
                        block_hash: block.hash,
                        log_index: pair[0].index,
                    });
                }
            }
        }
        payments
    }

    pub(crate) fn of(&self, identity: Identity) -> &[Payment] {
        self.0.get(&identity).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Payment> {
        self.0.values().flatten()
    }
}

/// What payers cancelled in some blocks.
pub(super) fn cancelled(blocks: &[Block], asset: Address) -> HashSet<Identity> {
    let is_cancellation = keccak256("AuthorizationCanceled(address,bytes32)");
    let mined = blocks.iter().flat_map(|block| &block.transactions);
    mined
        .flat_map(|mined| &mined.logs)
        .filter_map(|log| match log.topics[..] {
            [is, payer, nonce] if is == is_cancellation && log.address == asset => {
                Some(Identity { payer: Address::from_word(payer), nonce })
            }
            _ => None,
        })
        .collect()
}

/// `AuthorizationUsed(payer, nonce)`, and right behind it `Transfer(payer, payee, amount)`.
fn read(used: &Log, transfer: &Log, asset: Address) -> Option<(Identity, Address, U256)> {
    let are_the_tokens = used.address == asset && transfer.address == asset;
    let [used_is, payer, nonce] = used.topics[..] else { return None };
    let [transfer_is, from, to] = transfer.topics[..] else { return None };
    let is_payment = are_the_tokens
        && used_is == keccak256("AuthorizationUsed(address,bytes32)")
        && transfer_is == keccak256("Transfer(address,address,uint256)")
        && from == payer
        && transfer.index == used.index + 1;
    let identity = Identity { payer: Address::from_word(payer), nonce };
    is_payment.then(|| (identity, Address::from_word(to), U256::from_be_slice(&transfer.data)))
}
