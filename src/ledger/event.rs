//! What happened to a settlement, in order. The bus that everybody else reads.

use sqlx::PgConnection;

use crate::{
    db::{DbError, During},
    domain::{SettlementId, SettlementStatus},
};

/// One step in the life of a settlement that no transaction or block marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    status: SettlementStatus,
    detail: Option<String>,
}

impl Event {
    pub(super) const fn to(status: SettlementStatus) -> Self {
        Self { status, detail: None }
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
    sqlx::query!(
        "
        insert into event (settlement_id, status_from, status_to, detail)
        values ($1, $2, $3, $4)
        ",
        settlement_id.as_uuid(),
        from.map(SettlementStatus::as_str),
        event.status.as_str(),
        event.detail.as_deref(),
    )
    .execute(conn)
    .await
    .during("append an event")?;
    Ok(())
}
