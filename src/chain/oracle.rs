//! A sanctions oracle: a contract that says of an address whether it is sanctioned, in the interface of
//! Chainalysis (go.chainalysis.com/chainalysis-oracle-docs.html).

use alloy::{
    primitives::{Address, Bytes, TxKind},
    rpc::types::TransactionRequest,
    sol,
    sol_types::SolCall,
};

use super::{
    Chain, ChainError,
    settler::{MULTICALL3, each_returned, together},
};

sol! {
    function isSanctioned(address addr) returns (bool);
}

/// About how many addresses one call may ask. Each answer takes a cold slot and little else, so that they
/// stay far below what endpoints allow a call.
pub const N_ASKED_MAX: usize = 500;

impl Chain {
    /// Whether `oracle` calls the addresses sanctioned, in their order, by the newest block. One call.
    pub async fn sanctioned(
        &self,
        oracle: Address,
        addresses: &[Address],
    ) -> Result<Vec<bool>, ChainError> {
        let operation = || format!("ask {oracle} about {} addresses", addresses.len());
        let question = |addr: &Address| Bytes::from(isSanctionedCall { addr: *addr }.abi_encode());
        let (to, input) = match addresses {
            [] => return Ok(Vec::new()),
            // Needs nobody in between.
            [address] => (oracle, question(address)),
            several => {
                let calls = several.iter().map(|address| (oracle, question(address)));
                (MULTICALL3, together(calls.collect()))
            }
        };
        let request = TransactionRequest {
            to: Some(TxKind::Call(to)),
            input: input.into(),
            ..TransactionRequest::default()
        };
        let answer: Bytes = self.call(operation, "eth_call", (request, "latest")).await?;
        let words = match addresses {
            [_] => Some(vec![Some(answer)]),
            _ => each_returned(&answer),
        };
        let said = words.filter(|words| words.len() == addresses.len()).and_then(|words| {
            words.iter().map(|word| read(word.as_ref()?)).collect::<Option<Vec<bool>>>()
        });
        let unusable = || self.unusable(operation(), "it is no sanctions oracle".to_owned());
        said.ok_or_else(unusable)
    }
}

/// One word, zero or one: what has no code answers nothing, and must not pass for a "no".
fn read(word: &Bytes) -> Option<bool> {
    isSanctionedCall::abi_decode_returns_validate(word).ok()
}
