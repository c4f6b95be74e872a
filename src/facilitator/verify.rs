//! Would this payment be paid?

use crate::{
    db::During,
    domain::{InvalidReason, PaymentRequest, Refusal, SettlementStatus, UnixTime},
    ledger,
    merchants::Caller,
    verify::{Terms, Verified, against, terms},
};

use super::{Facilitator, FacilitatorError, ServedChain, check_mode};

impl Facilitator {
    /// Judges a payment and changes nothing: it may be asked any number of times.
    ///
    /// # Errors
    /// Trouble of ours or of the merchant; a verdict against the payment is the inner `Err`.
    pub async fn verify(
        &self,
        caller: &Caller,
        request: &PaymentRequest,
        now: UnixTime,
    ) -> Result<Result<Verified, Refusal>, FacilitatorError> {
        let chain = match self.served(request.requirements.chain_id) {
            Ok(chain) => chain,
            Err(refusal) => return Ok(Err(refusal)),
        };
        check_mode(caller, chain)?;
        let terms = match terms(request, now) {
            Ok(terms) => terms,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(refusal) = self.claimed_already(&terms).await? {
            return Ok(Err(refusal));
        }
        self.judge(chain, terms).await
    }

    /// Judges terms by what the newest block says.
    pub(super) async fn judge(
        &self,
        chain: &ServedChain,
        terms: Terms,
    ) -> Result<Result<Verified, Refusal>, FacilitatorError> {
        let _permit = self.verification_permit().await?;
        let node = chain.engine.chain();
        let block = node.shared_latest_block().await?;
        let asset = terms.requirements().asset;
        let snapshot =
            node.snapshot(&block, asset, terms.authorization(), terms.signature()).await?;
        Ok(against(terms, &snapshot))
    }

    async fn claimed_already(&self, terms: &Terms) -> Result<Option<Refusal>, FacilitatorError> {
        let mut conn = self.pool.acquire().await.during("look for an earlier claim")?;
        let claimed =
            ledger::find_by_authorization(&mut conn, terms.requirements(), terms.authorization())
                .await?;
        Ok(claimed.map(|settlement| {
            let message = match settlement.status {
                SettlementStatus::Failed => "the authorization was presented before, and failed",
                SettlementStatus::Claimed | SettlementStatus::Submitted => {
                    "the authorization is being settled"
                }
                SettlementStatus::Included
                | SettlementStatus::Safe
                | SettlementStatus::Finalized => "the authorization was settled",
            };
            Refusal::new(InvalidReason::NonceAlreadyUsed, message)
        }))
    }
}
