//! The promise: one authorization is claimed once.

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;

use crate::{
    db::{self, DbError, During},
    domain::{ApiKeyId, ChainId, Depth, IdempotencyKey, MerchantId, SettlementId},
    verify::Verified,
};

use super::ANSWER_RIGHT;

/// Who claims a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The id that the new settlement would have.
    pub settlement_id: SettlementId,
    /// The merchant that asks.
    pub merchant_id: MerchantId,
    /// With which key.
    pub api_key_id: ApiKeyId,
    /// Which request of its own the resource server serves with it.
    pub idempotency_key: Option<IdempotencyKey>,
    /// How deep the evidence must stand before success is handed out.
    pub wait_for: Depth,
}

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// It is ours to settle, and this caller holds the right to be told.
    Claimed,
    /// The authorization, or the merchant's idempotency key, was claimed before.
    Taken,
}

/// Holds the payer of `verified` until the database transaction ends, so that its promises of one asset are
/// made one after the other. Only claims and changes of the payer's own policy take this lock, and none of
/// them takes two.
pub async fn hold_payer(conn: &mut PgConnection, verified: &Verified) -> Result<(), DbError> {
    let terms = verified.terms();
    let requirements = terms.requirements();
    let payer = terms.authorization().payer;
    hold_account(conn, requirements.chain_id, requirements.asset, payer).await
}

/// Holds a payer's money in one asset until the database transaction ends, as claims do.
pub async fn hold_account(
    conn: &mut PgConnection,
    chain_id: ChainId,
    asset: Address,
    payer: Address,
) -> Result<(), DbError> {
    let name = format!("{chain_id}/{asset}/{payer}");
    sqlx::query_scalar!("select pg_advisory_xact_lock(hashtextextended($1, 0))", name)
        .execute(conn)
        .await
        .during("hold a payer")?;
    Ok(())
}

/// Records the promise to settle `verified`, at that estimated cost in gas where a budget asks for it: the
/// settlement, its pending entry and its first event.
pub async fn claim(
    conn: &mut PgConnection,
    claim: &Claim,
    verified: &Verified,
    gas_reserved_wei: U256,
) -> Result<ClaimOutcome, DbError> {
    let terms = verified.terms();
    let (authorization, requirements) = (terms.authorization(), terms.requirements());
    let digest = terms.digest();
    // One statement, because every payment makes it. Either unique constraint may answer; the caller
    // rereads to learn which.
    let inserted = sqlx::query!(
        "
        with claimed as (
            insert into settlement (settlement_id, merchant_id, api_key_id, x402_version, scheme,
                chain_id, asset, payer, payee, amount, valid_after, valid_before,
                authorization_nonce, signature, token_name, token_version, digest, resource,
                verified_block, idempotency_key, wait_for, payer_kind, simulated_gas, answer_held_until,
                gas_reserved_wei)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::numeric, $11::text::numeric,
                $12::text::numeric, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
                now() + make_interval(secs => $24), $25::text::numeric)
            on conflict do nothing
            returning settlement_id, payer, payee, chain_id, asset, amount),
        opened as (
            insert into event (settlement_id, status_to) select settlement_id, 'claimed' from claimed)
        insert into ledger_entry (settlement_id, subject, kind, sequence, debit_account,
            credit_account, asset, amount)
        select settlement_id, 'payment', 'pending', 0, 'payer:0x' || encode(payer, 'hex'),
            'payee:0x' || encode(payee, 'hex'), chain_id || '/0x' || encode(asset, 'hex'), amount
        from claimed
        ",
        claim.settlement_id.as_uuid(),
        claim.merchant_id.as_uuid(),
        claim.api_key_id.as_uuid(),
        i16::from(terms.version().as_u8()),
        requirements.scheme.as_str(),
        requirements.chain_id.to_string(),
        requirements.asset.as_slice(),
        authorization.payer.as_slice(),
        authorization.payee.as_slice(),
        authorization.amount.to_string(),
        authorization.valid_after.to_string(),
        authorization.valid_before.to_string(),
        authorization.nonce.as_bytes().as_slice(),
        terms.wire_signature().as_ref(),
        terms.token_domain().name,
        terms.token_domain().version,
        digest.as_slice(),
        requirements.resource.as_deref(),
        db::height(verified.block_number())?,
        claim.idempotency_key.as_ref().map(IdempotencyKey::as_str),
        claim.wait_for.as_str(),
        verified.payer_kind().as_str(),
        i64::try_from(verified.gas_used()).unwrap_or(i64::MAX),
        ANSWER_RIGHT.as_secs_f64(),
        gas_reserved_wei.to_string(),
    )
    .execute(conn)
    .await
    .during("claim a settlement")?;
    Ok(if inserted.rows_affected() == 0 { ClaimOutcome::Taken } else { ClaimOutcome::Claimed })
}
