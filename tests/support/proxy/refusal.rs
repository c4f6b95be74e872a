//! The same refusal in the words of different nodes.
//!
//! The words are those of go-ethereum (`core/error.go`, `core/txpool/errors.go`,
//! `core/txpool/legacypool`), whose every code is -32000, of reth (`RpcPoolError` and
//! `RpcInvalidTransactionError` of `rpc-eth-types`), and of anvil 1.7.1. Figures in them are made up.

use serde_json::{Value, json};

/// Whose words errors of `eth_sendRawTransaction` are in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Anvil,
    Geth,
    Reth,
}

/// Why a pool does not take a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    AlreadyKnown,
    NonceTooLow,
    NonceTooHigh,
    ReplacementUnderpriced,
    InsufficientFunds,
    /// Below all that fills the pool.
    Underpriced,
    /// Below the least priority fee of the node.
    PriorityFeeTooLow,
    /// Geth's pool does not refuse this, but keeps the transaction; its words come from elsewhere.
    FeeBelowBaseFee,
    PoolFull,
    AccountLimit,
    /// The wallet carries code (EIP-7702) and has a transaction in flight already.
    DelegatedLimit,
    Oversized,
    IntrinsicGas,
    BlockGasLimit,
    WrongChain,
    Undecodable,
}

impl Refusal {
    pub const ALL: [Self; 16] = [
        Self::AlreadyKnown,
        Self::NonceTooLow,
        Self::NonceTooHigh,
        Self::ReplacementUnderpriced,
        Self::InsufficientFunds,
        Self::Underpriced,
        Self::PriorityFeeTooLow,
        Self::FeeBelowBaseFee,
        Self::PoolFull,
        Self::AccountLimit,
        Self::DelegatedLimit,
        Self::Oversized,
        Self::IntrinsicGas,
        Self::BlockGasLimit,
        Self::WrongChain,
        Self::Undecodable,
    ];

    /// Code and message.
    pub fn words(self, dialect: Dialect) -> (i64, &'static str) {
        match dialect {
            Dialect::Anvil => self.of_anvil(),
            Dialect::Geth => (-32_000, self.of_geth()),
            Dialect::Reth => self.of_reth(),
        }
    }

    /// The error object of a JSON-RPC answer.
    pub(super) fn error(self, dialect: Dialect) -> Value {
        let (code, message) = self.words(dialect);
        json!({ "code": code, "message": message })
    }

    /// What anvil means by an error.
    pub(super) fn meant_by_anvil(error: &Value) -> Option<Self> {
        let message = error["message"].as_str()?.to_lowercase();
        Self::ALL.into_iter().find(|refusal| {
            let (code, words) = refusal.of_anvil();
            error["code"] == code && message == words.to_lowercase()
        })
    }

    /// Anvil refuses nothing for a full pool, a low tip, too many of one account, or size; it speaks
    /// as geth there.
    fn of_anvil(self) -> (i64, &'static str) {
        match self {
            Self::AlreadyKnown => (-32_003, "transaction already imported"),
            Self::NonceTooLow => (-32_003, "nonce too low"),
            Self::NonceTooHigh => (-32_003, "nonce too high"),
            Self::ReplacementUnderpriced => (-32_003, "replacement transaction underpriced"),
            Self::InsufficientFunds => (-32_003, "Insufficient funds for gas * price + value"),
            Self::FeeBelowBaseFee => (-32_003, "max fee per gas less than block base fee"),
            Self::IntrinsicGas => (-32_000, "intrinsic gas too low"),
            Self::BlockGasLimit => {
                (-32_000, "intrinsic gas too high -- tx.gas_limit > env.block.gas_limit")
            }
            Self::WrongChain => (-32_003, "invalid chain id for signer"),
            Self::Undecodable => (-32_602, "Failed to decode transaction"),
            Self::Underpriced
            | Self::PriorityFeeTooLow
            | Self::PoolFull
            | Self::AccountLimit
            | Self::DelegatedLimit
            | Self::Oversized => (-32_000, self.of_geth()),
        }
    }

    fn of_geth(self) -> &'static str {
        match self {
            Self::AlreadyKnown => "already known",
            Self::NonceTooLow => "nonce too low: next nonce 2, tx nonce 1",
            Self::NonceTooHigh => "nonce too high: tx nonce 3, gapped nonce 2",
            Self::ReplacementUnderpriced => "replacement transaction underpriced",
            Self::InsufficientFunds => {
                "insufficient funds for gas * price + value: balance 1, tx cost 2, overshot 1"
            }
            Self::Underpriced => "transaction underpriced",
            Self::PriorityFeeTooLow => {
                "transaction gas price below minimum: gas tip cap 0, minimum needed 1"
            }
            Self::FeeBelowBaseFee => {
                "max fee per gas less than block base fee: \
                 address 0x0000000000000000000000000000000000000001, maxFeePerGas: 1, baseFee: 2"
            }
            Self::PoolFull => "txpool is full",
            Self::AccountLimit => "account limit exceeded: pooled 64 txs",
            Self::DelegatedLimit => "in-flight transaction limit reached for delegated accounts",
            Self::Oversized => "oversized data: transaction size 131073, limit 131072",
            Self::IntrinsicGas => "intrinsic gas too low: gas 20000, minimum needed 21000",
            Self::BlockGasLimit => "exceeds block gas limit",
            Self::WrongChain => "invalid sender: invalid chain id for signer: have 1 want 8453",
            Self::Undecodable => "rlp: value size exceeds available input length",
        }
    }

    fn of_reth(self) -> (i64, &'static str) {
        match self {
            Self::AlreadyKnown => (-32_000, "already known"),
            Self::NonceTooLow => (-32_000, "nonce too low: next nonce 2, tx nonce 1"),
            Self::NonceTooHigh => (-32_000, "nonce too high"),
            Self::ReplacementUnderpriced => (-32_000, "replacement transaction underpriced"),
            Self::InsufficientFunds => {
                (-32_003, "insufficient funds for gas * price + value: have 1 want 2")
            }
            Self::Underpriced => (-32_000, "transaction underpriced"),
            Self::PriorityFeeTooLow => {
                (-32_003, "transaction priority fee below minimum required priority fee 1")
            }
            Self::FeeBelowBaseFee => (-32_000, "max fee per gas less than block base fee"),
            // It calls an account with too many transactions a full pool too.
            Self::PoolFull | Self::AccountLimit => (-32_003, "txpool is full"),
            Self::DelegatedLimit => {
                (-32_000, "in-flight transaction limit reached for delegated accounts")
            }
            Self::Oversized => (-32_000, "oversized data: transaction size 131073, limit 131072"),
            Self::IntrinsicGas => (-32_000, "intrinsic gas too low"),
            Self::BlockGasLimit => (-32_000, "exceeds block gas limit"),
            Self::WrongChain => (-32_000, "invalid chain ID"),
            Self::Undecodable => (-32_602, "failed to decode signed transaction"),
        }
    }
}
