//! What happened to a settlement, in order. The bus that everybody else reads.

use alloy::primitives::B256;
use sqlx::PgConnection;

use crate::{
    db::{self, DbError, During},
    domain::{Evidence, SettlementId, SettlementStatus},
};

/// One step in the life of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    status: SettlementStatus,
    transaction_hash: Option<B256>,
    block: Option<(u64, B256)>,
    detail: Option<String>,
}

impl Event {
    pub(super) const fn to(status: SettlementStatus) -> Self {
        Self { status, transaction_hash: None, block: None, detail: None }
    }

    pub(super) const fn of_transaction(mut self, hash: B256) -> Self {
        self.transaction_hash = Some(hash);
        self
    }

    pub(super) const fn with_evidence(mut self, evidence: &Evidence) -> Self {
        self.transaction_hash = Some(evidence.transaction_hash);
        self.block = Some((evidence.block_number, evidence.block_hash));
        self
    }

    pub(super) fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

pub(super) async fn append(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    from: Option<SettlementStatus>,
    event: &Event,
) -> Result<(), DbError> {
    let block_number = event.block.map(|(number, _)| db::height(number)).transpose()?;
    sqlx::query!(
        "
        insert into event (settlement_id, status_from, status_to, transaction_hash, block_number,
            block_hash, detail)
        values ($1, $2, $3, $4, $5, $6, $7)
        ",
        settlement_id.as_uuid(),
        from.map(SettlementStatus::as_str),
        event.status.as_str(),
        event.transaction_hash.as_ref().map(B256::as_slice),
        block_number,
        event.block.as_ref().map(|(_, hash)| hash.as_slice()),
        event.detail.as_deref(),
    )
    .execute(conn)
    .await
    .during("append an event")?;
    Ok(())
}
