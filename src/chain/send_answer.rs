//! What nodes answer to signed bytes, told apart by their words.
//!
//! No answer proves anything about a payment: a refusal may follow bytes that were taken, and what was
//! accepted may be forgotten. An answer only says what is worth trying next.

use std::fmt;

/// How much of a node's words is kept.
const MAX_TEXT_CHARS: usize = 300;

/// What one endpoint said to signed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendAnswer {
    /// The node took them.
    Accepted,
    /// The node has them already.
    AlreadyKnown,
    /// The account nonce is used up by a mined transaction.
    NonceTooLow,
    /// Transactions with lower account nonces are missing.
    NonceTooHigh,
    /// Another transaction holds the account nonce, and these bytes do not offer enough more.
    ReplacementUnderpriced,
    /// The fee is below the base fee or below what the pool takes.
    Underpriced,
    /// The wallet cannot pay for the gas.
    InsufficientFunds,
    /// The node can never take these bytes: gas limit, size, intrinsic gas, encoding, chain id.
    Rejected,
    /// The wallet has EIP-7702 code, and the node takes fewer transactions of such an account.
    InFlightLimit,
    /// Anything else: a full pool, too many calls, no answer, an answer nobody can read.
    Unknown(String),
}

impl fmt::Display for SendAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::AlreadyKnown => "already known",
            Self::NonceTooLow => "nonce too low",
            Self::NonceTooHigh => "nonce too high",
            Self::ReplacementUnderpriced => "replacement underpriced",
            Self::Underpriced => "underpriced",
            Self::InsufficientFunds => "insufficient funds",
            Self::Rejected => "rejected",
            Self::InFlightLimit => "in-flight limit of a delegated account",
            Self::Unknown(text) => text,
        })
    }
}

/// Words of nodes, in lower case; the first row that fits decides.
///
/// go-ethereum `core/txpool/errors.go`, `core/txpool/legacypool` and `core/error.go`; reth
/// `rpc-eth-types/src/error/mod.rs` and `transaction-pool/src/error.rs`; anvil `src/eth/error.rs` and
/// what it was seen to answer; Nethermind `TxPoolErrorMessages.cs` and, before 2026, the names in
/// `AcceptTxResult.cs`.
const WORDS: &[(&str, SendAnswer)] = &[
    ("in-flight transaction limit", SendAnswer::InFlightLimit),
    ("delegated accounts", SendAnswer::InFlightLimit),
    ("delegation nonce gap", SendAnswer::InFlightLimit),
    ("delegation authority has pending", SendAnswer::InFlightLimit),
    ("notcurrentnoncefordelegation", SendAnswer::InFlightLimit),
    ("delegatorhaspendingtx", SendAnswer::InFlightLimit),
    ("already known", SendAnswer::AlreadyKnown),
    ("already imported", SendAnswer::AlreadyKnown),
    ("alreadyknown", SendAnswer::AlreadyKnown),
    ("replacement transaction underpriced", SendAnswer::ReplacementUnderpriced),
    ("insufficient gas price to replace", SendAnswer::ReplacementUnderpriced),
    ("replacementnotallowed", SendAnswer::ReplacementUnderpriced),
    ("transaction underpriced", SendAnswer::Underpriced),
    ("gas price below minimum", SendAnswer::Underpriced),
    ("less than block base fee", SendAnswer::Underpriced),
    ("priority fee below minimum", SendAnswer::Underpriced),
    ("feetoolow", SendAnswer::Underpriced),
    ("insufficient funds", SendAnswer::InsufficientFunds),
    ("insufficientfunds", SendAnswer::InsufficientFunds),
    ("lack of funds", SendAnswer::InsufficientFunds),
    ("nonce too low", SendAnswer::NonceTooLow),
    ("oldnonce", SendAnswer::NonceTooLow),
    ("nonce too high", SendAnswer::NonceTooHigh),
    ("nonce too far in future", SendAnswer::NonceTooHigh),
    ("noncegap", SendAnswer::NonceTooHigh),
    ("noncetoofarinfuture", SendAnswer::NonceTooHigh),
    ("exceeds block gas limit", SendAnswer::Rejected),
    ("exceeds max transaction gas limit", SendAnswer::Rejected),
    ("greater than the block gas limit", SendAnswer::Rejected),
    ("gas limit too high", SendAnswer::Rejected),
    ("gas limit reached", SendAnswer::Rejected),
    ("gaslimitexceeded", SendAnswer::Rejected),
    ("intrinsic gas too", SendAnswer::Rejected),
    ("floor data gas", SendAnswer::Rejected),
    ("gas uint64 overflow", SendAnswer::Rejected),
    ("oversized data", SendAnswer::Rejected),
    ("transaction too large", SendAnswer::Rejected),
    ("maxtxsizeexceeded", SendAnswer::Rejected),
    ("initcode size exceeded", SendAnswer::Rejected),
    ("exceeds the configured cap", SendAnswer::Rejected),
    ("max priority fee per gas higher than", SendAnswer::Rejected),
    ("max fee per gas higher than", SendAnswer::Rejected),
    ("negative value", SendAnswer::Rejected),
    ("nonce has max value", SendAnswer::Rejected),
    ("cost overflow", SendAnswer::Rejected),
    ("int256overflow", SendAnswer::Rejected),
    ("transaction invalid", SendAnswer::Rejected),
    ("failed to decode", SendAnswer::Rejected),
    ("rlp:", SendAnswer::Rejected),
    ("typed transaction too short", SendAnswer::Rejected),
    ("empty transaction data", SendAnswer::Rejected),
    ("transaction type not supported", SendAnswer::Rejected),
    ("unsupported transaction type", SendAnswer::Rejected),
    ("invalid chain id", SendAnswer::Rejected),
    ("signed for another chain", SendAnswer::Rejected),
    ("invalid transaction signature", SendAnswer::Rejected),
    ("invalid sender", SendAnswer::Rejected),
    ("failed to recover sender", SendAnswer::Rejected),
    ("failedtoresolvesender", SendAnswer::Rejected),
];

impl SendAnswer {
    /// What a node's refusal means. Words that nobody knows mean nothing.
    pub fn of_refusal(message: &str) -> Self {
        let said = message.to_lowercase();
        let row = WORDS.iter().find(|(words, _)| said.contains(words));
        row.map_or_else(|| Self::unknown(message), |(_, answer)| answer.clone())
    }

    /// An answer that says nothing about the bytes, in its own words.
    pub fn unknown(text: &str) -> Self {
        Self::Unknown(text.chars().take(MAX_TEXT_CHARS).collect())
    }

    /// Whether the node says that it has the bytes.
    pub const fn is_acknowledgement(&self) -> bool {
        matches!(self, Self::Accepted | Self::AlreadyKnown)
    }

    /// How little an answer tells, next to those of other endpoints. A rejection comes after
    /// everything else: while one endpoint does not say it, the bytes may be taken there.
    const fn rank(&self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::AlreadyKnown => 1,
            Self::ReplacementUnderpriced => 2,
            Self::Underpriced => 3,
            Self::InsufficientFunds => 4,
            Self::NonceTooLow => 5,
            Self::NonceTooHigh => 6,
            Self::InFlightLimit => 7,
            Self::Unknown(_) => 8,
            Self::Rejected => 9,
        }
    }
}

/// What is told where no endpoint was asked.
static NOBODY_ASKED: SendAnswer = SendAnswer::Unknown(String::new());

/// What the endpoints said to the same signed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReport {
    /// The answers, each with the endpoint's position in the settings, from zero.
    pub answers: Vec<(usize, SendAnswer)>,
}

impl SendReport {
    /// Whether any endpoint says that it has the bytes. Not that they will be mined.
    pub fn is_acknowledged(&self) -> bool {
        self.answers.iter().any(|(_, answer)| answer.is_acknowledgement())
    }

    /// The answer that says most about what to do next. [`SendAnswer::Rejected`] only if every
    /// endpoint that was asked says it.
    pub fn telling(&self) -> &SendAnswer {
        let answers = self.answers.iter().map(|(_, answer)| answer);
        answers.min_by_key(|answer| answer.rank()).unwrap_or(&NOBODY_ASKED)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_TEXT_CHARS, SendAnswer, SendReport, WORDS};

    const GETH: &[(&str, SendAnswer)] = &[
        ("already known", SendAnswer::AlreadyKnown),
        ("nonce too low: next nonce 7, tx nonce 6", SendAnswer::NonceTooLow),
        ("nonce too high: tx nonce 9, gapped nonce 7", SendAnswer::NonceTooHigh),
        ("replacement transaction underpriced", SendAnswer::ReplacementUnderpriced),
        (
            "replacement transaction underpriced: new tx gas fee cap 1 < 2 queued + 10% replacement penalty",
            SendAnswer::ReplacementUnderpriced,
        ),
        ("transaction underpriced: gas tip cap 1, minimum needed 2", SendAnswer::Underpriced),
        (
            "transaction gas price below minimum: gas tip cap 1, minimum needed 2",
            SendAnswer::Underpriced,
        ),
        (
            "max fee per gas less than block base fee: address 0x71562b71999873DB5b286dF957af199Ec94617F7, maxFeePerGas: 1, baseFee: 875000000",
            SendAnswer::Underpriced,
        ),
        (
            "insufficient funds for gas * price + value: balance 1, tx cost 2, overshot 1",
            SendAnswer::InsufficientFunds,
        ),
        (
            "insufficient funds for gas * price + value: balance 3, queued cost 2, tx cost 2, overshot 1",
            SendAnswer::InsufficientFunds,
        ),
        ("insufficient funds for transfer", SendAnswer::InsufficientFunds),
        ("exceeds block gas limit", SendAnswer::Rejected),
        ("transaction gas limit too high (cap: 16777216, tx: 21000000)", SendAnswer::Rejected),
        ("intrinsic gas too low: gas 20000, minimum needed 21000", SendAnswer::Rejected),
        (
            "insufficient gas for floor data gas cost: gas 21000, minimum needed 40000",
            SendAnswer::Rejected,
        ),
        ("oversized data: transaction size 131073, limit 131072", SendAnswer::Rejected),
        ("invalid sender: invalid chain id for signer: have 1 want 8453", SendAnswer::Rejected),
        ("max priority fee per gas higher than max fee per gas", SendAnswer::Rejected),
        ("tx fee (1.50 ether) exceeds the configured cap (1.00 ether)", SendAnswer::Rejected),
        ("rlp: expected input list for types.DynamicFeeTx", SendAnswer::Rejected),
        ("transaction type not supported", SendAnswer::Rejected),
        ("in-flight transaction limit reached for delegated accounts", SendAnswer::InFlightLimit),
        ("gapped-nonce tx from delegated accounts", SendAnswer::InFlightLimit),
    ];

    const RETH: &[(&str, SendAnswer)] = &[
        ("already known", SendAnswer::AlreadyKnown),
        ("nonce too low: next nonce 7, tx nonce 6", SendAnswer::NonceTooLow),
        ("nonce too high", SendAnswer::NonceTooHigh),
        ("replacement transaction underpriced", SendAnswer::ReplacementUnderpriced),
        ("transaction underpriced", SendAnswer::Underpriced),
        ("max fee per gas less than block base fee", SendAnswer::Underpriced),
        (
            "insufficient funds for gas * price + value: have 1 want 2",
            SendAnswer::InsufficientFunds,
        ),
        ("lack of funds (1) for max fee (2)", SendAnswer::InsufficientFunds),
        ("exceeds block gas limit", SendAnswer::Rejected),
        ("exceeds max transaction gas limit", SendAnswer::Rejected),
        ("gas limit too high", SendAnswer::Rejected),
        ("intrinsic gas too low", SendAnswer::Rejected),
        ("intrinsic gas too high", SendAnswer::Rejected),
        ("oversized data: transaction size 131073, limit 131072", SendAnswer::Rejected),
        ("max initcode size exceeded", SendAnswer::Rejected),
        ("invalid chain ID", SendAnswer::Rejected),
        ("failed to decode signed transaction", SendAnswer::Rejected),
        ("empty transaction data", SendAnswer::Rejected),
        ("invalid transaction signature", SendAnswer::Rejected),
        ("tx fee (2 wei) exceeds the configured cap (1 wei)", SendAnswer::Rejected),
        ("in-flight transaction limit reached for delegated accounts", SendAnswer::InFlightLimit),
    ];

    const ANVIL: &[(&str, SendAnswer)] = &[
        ("transaction already imported", SendAnswer::AlreadyKnown),
        ("Tx: [0x01] already Imported", SendAnswer::AlreadyKnown),
        ("nonce too low", SendAnswer::NonceTooLow),
        ("Nonce too high", SendAnswer::NonceTooHigh),
        ("replacement transaction underpriced", SendAnswer::ReplacementUnderpriced),
        (
            "Tx: [0x01] insufficient gas price to replace existing transaction",
            SendAnswer::ReplacementUnderpriced,
        ),
        ("max fee per gas less than block base fee", SendAnswer::Underpriced),
        ("Insufficient funds for gas * price + value", SendAnswer::InsufficientFunds),
        ("intrinsic gas too low", SendAnswer::Rejected),
        ("intrinsic gas too high -- CallerGasLimitMoreThanBlock", SendAnswer::Rejected),
        (
            "Transaction gas limit is greater than the block gas limit, gas_limit: 2, cap: 1",
            SendAnswer::Rejected,
        ),
        ("invalid chain id for signer", SendAnswer::Rejected),
        ("Incompatible EIP-155 transaction, signed for another chain", SendAnswer::Rejected),
        ("Failed to decode transaction", SendAnswer::Rejected),
    ];

    const NETHERMIND: &[(&str, SendAnswer)] = &[
        ("already known", SendAnswer::AlreadyKnown),
        ("AlreadyKnown", SendAnswer::AlreadyKnown),
        ("nonce too low", SendAnswer::NonceTooLow),
        ("OldNonce, Current nonce: 7, nonce of rejected tx: 6", SendAnswer::NonceTooLow),
        ("nonce too high", SendAnswer::NonceTooHigh),
        ("NonceGap, Future nonce. Expected nonce: 7", SendAnswer::NonceTooHigh),
        ("nonce too far in future", SendAnswer::NonceTooHigh),
        ("replacement transaction underpriced", SendAnswer::ReplacementUnderpriced),
        ("ReplacementNotAllowed", SendAnswer::ReplacementUnderpriced),
        ("transaction underpriced", SendAnswer::Underpriced),
        (
            "FeeTooLow, EffectivePriorityFeePerGas too low 0 < 1, BaseFee: 7",
            SendAnswer::Underpriced,
        ),
        ("FeeTooLowToCompete", SendAnswer::Underpriced),
        ("insufficient funds for gas * price + value", SendAnswer::InsufficientFunds),
        (
            "InsufficientFunds, Account balance: 0, cumulative cost: 1",
            SendAnswer::InsufficientFunds,
        ),
        ("gas limit reached", SendAnswer::Rejected),
        ("GasLimitExceeded, Gas limit: 1, gas limit of rejected tx: 2", SendAnswer::Rejected),
        ("transaction too large", SendAnswer::Rejected),
        ("MaxTxSizeExceeded", SendAnswer::Rejected),
        ("transaction invalid", SendAnswer::Rejected),
        ("failed to recover sender", SendAnswer::Rejected),
        ("unsupported transaction type", SendAnswer::Rejected),
        ("delegation nonce gap", SendAnswer::InFlightLimit),
        ("delegation authority has pending transaction", SendAnswer::InFlightLimit),
    ];

    #[test]
    fn the_words_of_four_clients_are_understood() {
        for (client, said) in
            [("geth", GETH), ("reth", RETH), ("anvil", ANVIL), ("nethermind", NETHERMIND)]
        {
            for (words, expected) in said {
                assert_eq!(SendAnswer::of_refusal(words), *expected, "{client}: {words}");
            }
        }
    }

    #[test]
    fn what_says_nothing_about_the_bytes_is_unknown_and_kept() {
        for words in [
            "txpool is full",
            "account limit exceeded: pooled 64 txs",
            "address already reserved",
            "future transaction tries to replace pending",
            "node is syncing",
            "limit exceeded",
            "Too Many Requests",
            "unknown transaction",
            "internal error",
            "",
        ] {
            assert_eq!(SendAnswer::of_refusal(words), SendAnswer::Unknown(words.to_owned()));
        }
        let SendAnswer::Unknown(kept) = SendAnswer::unknown(&"ü".repeat(MAX_TEXT_CHARS + 1))
        else {
            panic!("not unknown");
        };
        assert_eq!(kept.chars().count(), MAX_TEXT_CHARS);
    }

    #[test]
    fn every_row_of_the_table_can_be_reached() {
        for (words, answer) in WORDS {
            assert_eq!(*words, words.to_lowercase(), "nothing else is looked for");
            assert_eq!(SendAnswer::of_refusal(words), *answer, "{words} is hidden by another row");
        }
    }

    #[test]
    fn the_most_telling_answer_is_found_whoever_gives_it() {
        let unknown = || SendAnswer::unknown("timeout");
        // From the most telling to the least.
        let in_order = [
            SendAnswer::Accepted,
            SendAnswer::AlreadyKnown,
            SendAnswer::ReplacementUnderpriced,
            SendAnswer::Underpriced,
            SendAnswer::InsufficientFunds,
            SendAnswer::NonceTooLow,
            SendAnswer::NonceTooHigh,
            SendAnswer::InFlightLimit,
            unknown(),
            SendAnswer::Rejected,
        ];
        for (n, first) in in_order.iter().enumerate() {
            for second in &in_order[n..] {
                for pair in [[first, second], [second, first]] {
                    let answers = pair.into_iter().cloned().enumerate().collect();
                    let report = SendReport { answers };
                    assert_eq!(report.telling(), first, "{first} and {second}");
                    assert_eq!(report.is_acknowledged(), n < 2, "{first} and {second}");
                }
            }
        }
        let nobody = SendReport { answers: vec![] };
        assert!(!nobody.is_acknowledged());
        assert_eq!(*nobody.telling(), SendAnswer::Unknown(String::new()));
    }
}
