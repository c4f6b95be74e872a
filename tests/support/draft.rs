//! Transactions that somebody else than the service signs: third parties, or the wallet's own key
//! used elsewhere.

use alloy::{
    consensus::{SignableTransaction as _, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718 as _,
    hex,
    network::TxSignerSync as _,
    primitives::{Address, B256, Bytes, TxKind},
    signers::local::PrivateKeySigner,
};
use quittance::{app::dev::Account, domain::ChainId};

/// What is to be signed. Tests change the fields that they are about.
#[derive(Debug, Clone)]
pub struct Draft {
    pub account_nonce: u64,
    pub fee_wei_max: u128,
    pub priority_fee_wei_max: u128,
    pub gas_limit: u64,
    pub to: Address,
    pub data: Bytes,
}

/// One signed envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub hash: B256,
    /// In hex, as nodes take it.
    pub raw: String,
}

impl Draft {
    /// A call of nobody, with fees far above the local chain's.
    pub fn new(account_nonce: u64) -> Self {
        Self {
            account_nonce,
            fee_wei_max: 1_000_000_000,
            priority_fee_wei_max: 100_000_000,
            gas_limit: 21_000,
            to: Address::repeat_byte(0x77),
            data: Bytes::new(),
        }
    }

    /// With this share of both fees, in per cent.
    pub fn priced(&self, per_cent: u128) -> Self {
        let share = |fee: u128| fee * per_cent / 100;
        Self {
            fee_wei_max: share(self.fee_wei_max),
            priority_fee_wei_max: share(self.priority_fee_wei_max),
            ..self.clone()
        }
    }

    pub fn sign(&self, account: &Account, chain_id: ChainId) -> Signed {
        let signer: PrivateKeySigner = account.private_key.parse().unwrap();
        let mut envelope = TxEip1559 {
            chain_id: chain_id.eip155(),
            nonce: self.account_nonce,
            gas_limit: self.gas_limit,
            max_fee_per_gas: self.fee_wei_max,
            max_priority_fee_per_gas: self.priority_fee_wei_max,
            to: TxKind::Call(self.to),
            input: self.data.clone(),
            ..TxEip1559::default()
        };
        let signature = signer.sign_transaction_sync(&mut envelope).unwrap();
        let envelope = TxEnvelope::from(envelope.into_signed(signature));
        Signed { hash: *envelope.tx_hash(), raw: hex::encode_prefixed(envelope.encoded_2718()) }
    }
}
