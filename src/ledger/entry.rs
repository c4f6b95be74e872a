//! Double entries: every row moves an amount from one account to another, and none is ever changed.

use alloy::primitives::{Address, B256, U256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{DbError, During},
    domain::{ChainId, SettlementId},
};

/// What an entry says of a payment. The first, `pending`, is written with the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Moved, by evidence.
    Post,
    /// Will not move.
    Void,
    /// Moved back, because the evidence is gone.
    Reverse,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Post => "post",
            Self::Void => "void",
            Self::Reverse => "reverse",
        }
    }
}

/// Records what became of the money of settlements, each with the block that says so. A reversal swaps
/// the two accounts.
pub(super) async fn payments(
    conn: &mut PgConnection,
    kind: Kind,
    settlements: &[(SettlementId, Option<B256>)],
) -> Result<(), DbError> {
    let ids: Vec<Uuid> = settlements.iter().map(|(id, _)| id.as_uuid()).collect();
    // An array of the driver holds no nulls; no bytes stand for no block.
    let blocks: Vec<Vec<u8>> = settlements
        .iter()
        .map(|(_, hash)| hash.map_or_else(Vec::new, |hash| hash.to_vec()))
        .collect();
    sqlx::query!(
        "
        insert into ledger_entry (settlement_id, subject, kind, sequence, debit_account,
            credit_account, asset, amount, block_hash)
        select settlement_id, 'payment', $2,
            (select count(*) from ledger_entry
                where ledger_entry.settlement_id = settlement.settlement_id
                    and subject = 'payment' and kind = $2),
            case when $2 = 'reverse' then 'payee:0x' || encode(payee, 'hex')
                else 'payer:0x' || encode(payer, 'hex') end,
            case when $2 = 'reverse' then 'payer:0x' || encode(payer, 'hex')
                else 'payee:0x' || encode(payee, 'hex') end,
            chain_id || '/0x' || encode(asset, 'hex'), amount, nullif(item.block_hash, '')
        from unnest($1::uuid[], $3::bytea[]) as item (settlement_id, block_hash)
            join settlement using (settlement_id)
        ",
        &ids,
        kind.as_str(),
        &blocks,
    )
    .execute(conn)
    .await
    .during("write ledger entries of payments")?;
    Ok(())
}

/// One settlement's part of what a mined transaction cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GasShare {
    /// Which settlement bears it.
    pub settlement_id: SettlementId,
    /// The transaction that was mined.
    pub transaction_id: i64,
    /// The chain, for the name of its coin.
    pub chain_id: ChainId,
    /// The wallet that paid.
    pub wallet: Address,
    /// How much, in wei.
    pub fee_wei: U256,
    /// The block it was mined in.
    pub block_hash: B256,
}

/// Charges shares of gas to the merchants of settlements, and counts what merchants and payers cost that
/// day. Only a chain's follower writes either.
pub async fn post_gas(conn: &mut PgConnection, shares: &[GasShare]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = shares.iter().map(|share| share.settlement_id.as_uuid()).collect();
    let wallets: Vec<String> =
        shares.iter().map(|share| format!("wallet:{:#x}", share.wallet)).collect();
    let coins: Vec<String> =
        shares.iter().map(|share| format!("{}/native", share.chain_id)).collect();
    let fees: Vec<String> = shares.iter().map(|share| share.fee_wei.to_string()).collect();
    let transactions: Vec<i64> = shares.iter().map(|share| share.transaction_id).collect();
    let blocks: Vec<Vec<u8>> = shares.iter().map(|share| share.block_hash.to_vec()).collect();
    sqlx::query!(
        "
        with posted as (
            insert into ledger_entry (settlement_id, subject, kind, sequence, debit_account,
                credit_account, asset, amount, transaction_id, block_hash)
            select settlement_id, 'gas', 'post',
                (select count(*) from ledger_entry
                    where ledger_entry.settlement_id = share.settlement_id
                        and subject = 'gas' and kind = 'post')
                    -- A block can hold two transactions of ours that carried the same settlement.
                    + row_number() over (partition by settlement_id order by share.transaction_id)
                    - 1,
                share.wallet, 'gas:' || merchant_id, share.coin, share.fee_wei::numeric,
                share.transaction_id, share.block_hash
            from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bytea[])
                    as share (settlement_id, wallet, coin, fee_wei, transaction_id, block_hash)
                join settlement using (settlement_id)
            returning settlement_id, amount)
        insert into gas_spent (chain_id, subject, day, wei)
        select chain_id, spender, (now() at time zone 'UTC')::date, sum(posted.amount)
        from posted join settlement using (settlement_id)
            cross join lateral (values ('merchant:' || merchant_id),
                ('payer:0x' || encode(payer, 'hex'))) as whose (spender)
        group by chain_id, spender
        order by chain_id, spender
        on conflict on constraint gas_spent_pkey do update set wei = gas_spent.wei + excluded.wei
        ",
        &ids,
        &wallets,
        &coins,
        &fees,
        &transactions,
        &blocks,
    )
    .execute(conn)
    .await
    .during("write gas ledger entries")?;
    Ok(())
}

/// Takes back the gas entries of transactions whose block is gone, and what they came to, from the day they
/// were posted on.
pub async fn reverse_gas(
    conn: &mut PgConnection,
    transaction_ids: &[i64],
    orphaned_blocks: &[B256],
) -> Result<(), DbError> {
    let blocks: Vec<Vec<u8>> = orphaned_blocks.iter().map(|hash| hash.to_vec()).collect();
    sqlx::query!(
        "
        with post as (
            -- A block can come and go more than once; only its newest post can stand.
            select distinct on (settlement_id, transaction_id, block_hash) *
            from ledger_entry
            where subject = 'gas' and kind = 'post' and transaction_id = any($1)
                and block_hash = any($2)
            order by settlement_id, transaction_id, block_hash, ledger_entry_id desc),
        standing as (
            select * from post
            where (select count(*) filter (where kind = 'post')
                    > count(*) filter (where kind = 'reverse')
                from ledger_entry same
                where same.subject = 'gas' and same.settlement_id = post.settlement_id
                    and same.transaction_id = post.transaction_id
                    and same.block_hash = post.block_hash)),
        reversed as (
            insert into ledger_entry (settlement_id, subject, kind, sequence, debit_account,
                credit_account, asset, amount, transaction_id, block_hash)
            select settlement_id, 'gas', 'reverse',
                (select count(*) from ledger_entry earlier
                    where earlier.settlement_id = standing.settlement_id
                        and earlier.subject = 'gas' and earlier.kind = 'reverse')
                    + row_number() over (partition by settlement_id order by ledger_entry_id) - 1,
                credit_account, debit_account, asset, amount, transaction_id, block_hash
            from standing)
        insert into gas_spent (chain_id, subject, day, wei)
        select chain_id, spender, (standing.created_at at time zone 'UTC')::date,
            -sum(standing.amount)
        from standing join settlement using (settlement_id)
            cross join lateral (values ('merchant:' || merchant_id),
                ('payer:0x' || encode(payer, 'hex'))) as whose (spender)
        group by 1, 2, 3
        order by 1, 2, 3
        on conflict on constraint gas_spent_pkey do update set wei = gas_spent.wei + excluded.wei
        ",
        transaction_ids,
        &blocks,
    )
    .execute(conn)
    .await
    .during("reverse gas ledger entries")?;
    Ok(())
}
