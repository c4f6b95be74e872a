//! What known defects of other engines do, when a test switches them on (`crate::faults`).

use crate::{
    db::During,
    domain::{InvalidReason, Refusal, SettlementId, SettlementStatus},
    ledger,
};

use super::{Engine, EngineError, desk::Desk, outcomes, store};

impl Engine {
    /// What [`Defect::FailOnTimeout`] does.
    pub(super) async fn fail_unanswered(
        &self,
        settlement_ids: &[SettlementId],
    ) -> Result<(), EngineError> {
        let refusal = Refusal::new(InvalidReason::SimulationFailed, "the send timed out");
        let mut db = self.pool.begin().await.during("fail what was not answered")?;
        for settlement_id in settlement_ids {
            let expected = [SettlementStatus::Submitted];
            ledger::fail(&mut db, *settlement_id, &expected, &refusal).await?;
        }
        outcomes::announce(&mut db, self.chain.chain_id()).await?;
        Ok(db.commit().await.during("fail what was not answered")?)
    }

    /// What [`Defect::ResetNonce`] and [`Defect::RecycleNonce`] do; that the nonce cannot go back as
    /// well is the database's doing.
    pub(super) async fn forget_transaction(
        &self,
        desk: &Desk,
        account_nonce: u64,
    ) -> Result<(), EngineError> {
        let mut db = self.pool.begin().await.during("forget a transaction")?;
        let beyond = account_nonce.saturating_add(1);
        for settlement_id in store::mark_foreign(&mut db, desk.wallet_id, beyond).await? {
            ledger::requeue(&mut db, settlement_id, "its send failed").await?;
        }
        Ok(db.commit().await.during("forget a transaction")?)
    }
}
