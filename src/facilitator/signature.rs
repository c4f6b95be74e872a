//! Who signed something that is no payment: a policy, or a message to sign in.

use alloy::primitives::{Address, B256, Bytes};

use crate::{
    chain::{Chain, SignatureAnswer},
    domain::{ChainId, KeyMode},
    verify::{EcdsaSignature, Unwrapped},
};

use super::{Facilitator, FacilitatorError};

/// Whether somebody signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// It did, on a chain for such keys.
    On(KeyMode),
    /// It did not.
    No,
    /// Nobody can say: the chain is not served.
    NotServed(String),
}

impl Facilitator {
    /// Whether `signer` signed, by its own key or by the word of its code on that chain.
    ///
    /// # Errors
    /// Trouble of ours or of the chain.
    pub async fn signed(
        &self,
        chain_id: ChainId,
        signer: Address,
        digest: B256,
        signature: &Bytes,
    ) -> Result<Signed, FacilitatorError> {
        let served = match self.served(chain_id) {
            Ok(served) => served,
            Err(refusal) => return Ok(Signed::NotServed(refusal.message)),
        };
        let chain = served.engine.chain();
        Ok(match self.has_signed(chain, signer, digest, signature).await? {
            true => Signed::On(served.mode),
            false => Signed::No,
        })
    }

    /// Whether `signer` signed: with its key, or by the word of its code where it has code.
    pub(super) async fn has_signed(
        &self,
        chain: &Chain,
        signer: Address,
        digest: B256,
        signature: &Bytes,
    ) -> Result<bool, FacilitatorError> {
        let _place = self.judging.try_acquire().map_err(|_| FacilitatorError::Busy)?;
        let signature = Unwrapped::of(signature).signature;
        Ok(match chain.judge_signature(signer, digest, &signature).await? {
            SignatureAnswer::Accepted => true,
            SignatureAnswer::Refused => false,
            SignatureAnswer::NoCode => EcdsaSignature::parse(&signature)
                .is_some_and(|ecdsa| !ecdsa.has_high_s() && ecdsa.signer(digest) == Some(signer)),
        })
    }
}
