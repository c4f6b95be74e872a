//! Whether an account's code takes a signature for its own (ERC-1271), asked for what is never sent to the
//! chain.

use alloy::{
    eips::BlockId,
    primitives::{Address, B256, Bytes, TxKind, U64},
    rpc::{client::Waiter, types::TransactionRequest},
    sol,
    sol_types::SolCall,
};

use super::{
    Chain, ChainError,
    endpoints::Endpoint,
    error::{ChainErrorKind, execution_failure},
};

sol! {
    interface Erc1271 {
        function isValidSignature(bytes32 hash, bytes signature) returns (bytes4);
    }
}

/// The gas that an account's code may use to judge a signature. Passkeys without a precompile use 350,000.
const SIGNATURE_GAS_LIMIT: u64 = 2_000_000;
/// What the code answers to a signature that it accepts, padded to a word.
const ACCEPTED: [u8; 4] = Erc1271::isValidSignatureCall::SELECTOR;

/// What an account says of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAnswer {
    /// It has no code: its key decides.
    NoCode,
    /// Its code accepts the signature.
    Accepted,
    /// Its code does not.
    Refused,
}

impl Chain {
    /// What the code at `account`, if there is any, says of a signature over `digest`, by the newest block.
    pub async fn judge_signature(
        &self,
        account: Address,
        digest: B256,
        signature: &Bytes,
    ) -> Result<SignatureAnswer, ChainError> {
        let operation = || format!("ask {account} whether it signed");
        let call = Erc1271::isValidSignatureCall { hash: digest, signature: signature.clone() };
        let calldata = Bytes::from(call.abi_encode());
        let question = |endpoint: std::sync::Arc<Endpoint>| {
            let calldata = calldata.clone();
            async move { endpoint.judge_signature(account, calldata).await }
        };
        self.ask(operation, question).await
    }
}

impl Endpoint {
    async fn judge_signature(
        &self,
        account: Address,
        calldata: Bytes,
    ) -> Result<SignatureAnswer, ChainErrorKind> {
        let failed = ChainErrorKind::of_call;
        self.count("quittance_rpc_calls_total", "signature");
        let mut batch = self.rpc.new_batch();
        // An endpoint of another chain would answer too, and of another account.
        let chain_id: Waiter<U64> = batch.add_call("eth_chainId", &()).map_err(failed)?;
        let code: Waiter<Bytes> =
            batch.add_call("eth_getCode", &(account, BlockId::latest())).map_err(failed)?;
        let request = TransactionRequest {
            to: Some(TxKind::Call(account)),
            gas: Some(SIGNATURE_GAS_LIMIT),
            input: calldata.into(),
            ..TransactionRequest::default()
        };
        let verdict: Waiter<Bytes> =
            batch.add_call("eth_call", &(request, BlockId::latest())).map_err(failed)?;
        batch.send().await.map_err(failed)?;
        self.expect_chain(chain_id.await.map_err(failed)?.to())?;
        let (code, verdict) = (code.await.map_err(failed)?, verdict.await);
        if code.is_empty() {
            return Ok(SignatureAnswer::NoCode);
        }
        let answer = match verdict {
            Ok(answer) => answer,
            Err(error) if execution_failure(&error).is_some() => {
                return Ok(SignatureAnswer::Refused);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut accepted = [0; 32];
        accepted[..ACCEPTED.len()].copy_from_slice(&ACCEPTED);
        let is_accepted = answer.get(..accepted.len()) == Some(accepted.as_slice());
        Ok(if is_accepted { SignatureAnswer::Accepted } else { SignatureAnswer::Refused })
    }
}
