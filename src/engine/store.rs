//! The engine's own tables: wallets, transactions, attempts, and how far each chain was read.
//!
//! Lock order everywhere: `wallet` or `chain_head`, then `transaction`, then `settlement` by id.

use std::time::Duration;

use alloy::primitives::{Address, B256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    chain::{Block, TokenEvent},
    db::{self, DbError, During},
    domain::{ChainId, Evidence, SettlementId, UnixTime},
};

use super::{fees::Fees, wallet::Signed};

/// How often a settlement is put into a transaction before we stop paying gas for it.
pub(super) const N_TRANSACTIONS_MAX: i32 = 3;

/// Until when after its claim a settlement is signed for without another look at the chain.
const FRESH: Duration = Duration::from_secs(2);

/// A wallet's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalletRow {
    pub(super) wallet_id: i32,
    pub(super) next_account_nonce: u64,
}

/// Registers a wallet at `account_nonce` if it is new, and reads its row.
pub(super) async fn ensure_wallet(
    conn: &mut PgConnection,
    chain_id: ChainId,
    address: Address,
    account_nonce: u64,
) -> Result<WalletRow, DbError> {
    sqlx::query!(
        "
        insert into wallet (chain_id, address, next_account_nonce) values ($1, $2, $3)
        on conflict (chain_id, address) do nothing
        ",
        chain_id.to_string(),
        address.as_slice(),
        db::height(account_nonce)?,
    )
    .execute(&mut *conn)
    .await
    .during("register a wallet")?;
    let row = sqlx::query!(
        "select wallet_id, next_account_nonce from wallet where chain_id = $1 and address = $2",
        chain_id.to_string(),
        address.as_slice(),
    )
    .fetch_one(conn)
    .await
    .during("read a wallet")?;
    Ok(WalletRow {
        wallet_id: row.wallet_id,
        next_account_nonce: db::number(row.next_account_nonce)?,
    })
}

/// The account nonce of the wallet's next transaction.
pub(super) async fn next_account_nonce(
    conn: &mut PgConnection,
    wallet_id: i32,
) -> Result<u64, DbError> {
    let next = sqlx::query_scalar!(
        "select next_account_nonce from wallet where wallet_id = $1",
        wallet_id
    )
    .fetch_one(conn)
    .await
    .during("read the next account nonce")?;
    db::number(next)
}

/// A transaction that no block has resolved, with its newest attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenTransaction {
    pub(super) transaction_id: i64,
    pub(super) hash: B256,
    pub(super) raw: Vec<u8>,
}

/// A wallet's open transactions in the order of their account nonces.
pub(super) async fn open_transactions(
    conn: &mut PgConnection,
    wallet_id: i32,
) -> Result<Vec<OpenTransaction>, DbError> {
    let rows = sqlx::query!(
        "
        select distinct on (account_nonce) transaction_id, transaction_hash, raw
        from transaction join attempt using (transaction_id)
        where wallet_id = $1 and status = 'open'
        order by account_nonce, sequence desc
        ",
        wallet_id,
    )
    .fetch_all(conn)
    .await
    .during("read open transactions")?;
    rows.into_iter()
        .map(|row| {
            Ok(OpenTransaction {
                transaction_id: row.transaction_id,
                hash: db::hash(&row.transaction_hash)?,
                raw: row.raw,
            })
        })
        .collect()
}

/// The settlement that waits longest for a transaction, and whether its verification is fresh.
pub(super) async fn next_claimed(
    conn: &mut PgConnection,
    chain_id: ChainId,
) -> Result<Option<(SettlementId, bool)>, DbError> {
    let row = sqlx::query!(
        r#"
        select settlement_id,
            n_transactions = 0 and created_at > now() - make_interval(secs => $3) as "is_fresh!"
        from settlement
        where chain_id = $1 and status = 'claimed' and n_transactions < $2 and not_before <= now()
        order by not_before, created_at
        limit 1
        "#,
        chain_id.to_string(),
        N_TRANSACTIONS_MAX,
        FRESH.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await
    .during("find the next settlement to send")?;
    Ok(row.map(|row| (SettlementId::from_uuid(row.settlement_id), row.is_fresh)))
}

/// Looks away from a settlement for a while.
pub(super) async fn postpone(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
    delay: Duration,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update settlement set not_before = now() + make_interval(secs => $2)
        where settlement_id = $1
        ",
        settlement_id.as_uuid(),
        delay.as_secs_f64(),
    )
    .execute(conn)
    .await
    .during("postpone a settlement")?;
    Ok(())
}

/// A signed transaction about to be stored.
#[derive(Debug)]
pub(super) struct NewTransaction<'a> {
    pub(super) wallet_id: i32,
    pub(super) chain_id: ChainId,
    pub(super) account_nonce: u64,
    pub(super) signed: &'a Signed,
    pub(super) fees: Fees,
    pub(super) gas_limit: u64,
    pub(super) settlement_ids: &'a [SettlementId],
}

/// Takes the account nonce and stores the signed bytes that use it. `None` if another process took
/// the nonce first: nothing is stored then and the bytes must be thrown away.
pub(super) async fn store_transaction(
    conn: &mut PgConnection,
    new: &NewTransaction<'_>,
) -> Result<Option<i64>, DbError> {
    let account_nonce = db::height(new.account_nonce)?;
    let taken = sqlx::query!(
        "
        update wallet set next_account_nonce = next_account_nonce + 1
        where wallet_id = $1 and next_account_nonce = $2
        ",
        new.wallet_id,
        account_nonce,
    )
    .execute(&mut *conn)
    .await
    .during("take an account nonce")?;
    if taken.rows_affected() == 0 {
        return Ok(None);
    }
    let transaction_id = sqlx::query_scalar!(
        "
        insert into transaction (wallet_id, chain_id, account_nonce) values ($1, $2, $3)
        returning transaction_id
        ",
        new.wallet_id,
        new.chain_id.to_string(),
        account_nonce,
    )
    .fetch_one(&mut *conn)
    .await
    .during("store a transaction")?;
    sqlx::query!(
        "
        insert into attempt (transaction_hash, transaction_id, sequence, raw, fee_wei_max,
            priority_fee_wei_max, gas_limit)
        values ($1, $2, 0, $3, $4::text::numeric, $5::text::numeric, $6)
        ",
        new.signed.hash.as_slice(),
        transaction_id,
        new.signed.raw,
        new.fees.fee_wei_max.to_string(),
        new.fees.priority_fee_wei_max.to_string(),
        db::height(new.gas_limit)?,
    )
    .execute(&mut *conn)
    .await
    .during("store an attempt")?;
    let items: Vec<Uuid> = new.settlement_ids.iter().map(|id| id.as_uuid()).collect();
    sqlx::query!(
        "
        insert into transaction_item (transaction_id, item_index, settlement_id)
        select $1, position - 1, settlement_id
        from unnest($2::uuid[]) with ordinality as item (settlement_id, position)
        ",
        transaction_id,
        &items,
    )
    .execute(conn)
    .await
    .during("store what a transaction carries")?;
    Ok(Some(transaction_id))
}

/// Notes what a node answered. Nothing depends on it.
pub(super) async fn note_sent(
    conn: &mut PgConnection,
    hash: B256,
    answer: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "update attempt set sent_at = now(), sent_answer = $2 where transaction_hash = $1",
        hash.as_slice(),
        answer,
    )
    .execute(conn)
    .await
    .during("note a send")?;
    Ok(())
}

/// The newest attempt of the newest transaction that carries a settlement.
pub async fn latest_attempt(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
) -> Result<Option<B256>, DbError> {
    let hash = sqlx::query_scalar!(
        "
        select transaction_hash
        from transaction_item join attempt using (transaction_id)
        where settlement_id = $1
        order by transaction_id desc, sequence desc
        limit 1
        ",
        settlement_id.as_uuid(),
    )
    .fetch_optional(conn)
    .await
    .during("find the newest attempt of a settlement")?;
    hash.as_deref().map(db::hash).transpose()
}

/// The last block that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) number: u64,
    pub(super) hash: B256,
}

/// How far a chain was read.
pub(super) async fn tip(
    conn: &mut PgConnection,
    chain_id: ChainId,
) -> Result<Option<Tip>, DbError> {
    let row = sqlx::query!(
        "select number, hash from chain_head where chain_id = $1",
        chain_id.to_string()
    )
    .fetch_optional(conn)
    .await
    .during("read the applied head")?;
    row.map(|row| Ok(Tip { number: db::number(row.number)?, hash: db::hash(&row.hash)? }))
        .transpose()
}

/// Starts reading a chain at `block`, or jumps there when nothing below it can concern us.
pub(super) async fn start_at(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block: &Block,
) -> Result<(), DbError> {
    let chain = chain_id.to_string();
    sqlx::query!(
        "
        insert into chain_head (chain_id, number, hash) values ($1, $2, $3)
        on conflict (chain_id) do update set number = excluded.number, hash = excluded.hash
        ",
        chain,
        db::height(block.number)?,
        block.hash.as_slice(),
    )
    .execute(&mut *conn)
    .await
    .during("start following a chain")?;
    sqlx::query!("delete from chain_block where chain_id = $1", chain)
        .execute(&mut *conn)
        .await
        .during("forget blocks")?;
    insert_block(conn, chain_id, block).await
}

/// Moves the head from the parent of `block` to `block`. `false` if it is not at the parent: then
/// another process was faster, and nothing of this block may be written.
pub(super) async fn advance(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block: &Block,
) -> Result<bool, DbError> {
    let moved = sqlx::query!(
        "update chain_head set number = $2, hash = $3 where chain_id = $1 and hash = $4",
        chain_id.to_string(),
        db::height(block.number)?,
        block.hash.as_slice(),
        block.parent_hash.as_slice(),
    )
    .execute(&mut *conn)
    .await
    .during("advance the head")?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    insert_block(conn, chain_id, block).await?;
    Ok(true)
}

async fn insert_block(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block: &Block,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        insert into chain_block (chain_id, number, hash, parent_hash) values ($1, $2, $3, $4)
        on conflict (chain_id, number) do nothing
        ",
        chain_id.to_string(),
        db::height(block.number)?,
        block.hash.as_slice(),
        block.parent_hash.as_slice(),
    )
    .execute(conn)
    .await
    .during("record a block")?;
    Ok(())
}

/// The applied block of that height, if it is still kept.
pub(super) async fn applied_block(
    conn: &mut PgConnection,
    chain_id: ChainId,
    number: u64,
) -> Result<Option<B256>, DbError> {
    let hash = sqlx::query_scalar!(
        "select hash from chain_block where chain_id = $1 and number = $2",
        chain_id.to_string(),
        db::height(number)?,
    )
    .fetch_optional(conn)
    .await
    .during("read an applied block")?;
    hash.as_deref().map(db::hash).transpose()
}

/// The height that was final when it was last asked for.
pub(super) async fn finalized_number(
    conn: &mut PgConnection,
    chain_id: ChainId,
) -> Result<Option<u64>, DbError> {
    let number = sqlx::query_scalar!(
        "select finalized_number from chain_head where chain_id = $1",
        chain_id.to_string()
    )
    .fetch_optional(conn)
    .await
    .during("read the finalized height")?;
    number.flatten().map(db::number).transpose()
}

/// Whether the block of `evidence` is one that the follower applied and has not left. Keeps the head
/// where it is until the surrounding transaction ends.
pub(super) async fn is_canonical(
    conn: &mut PgConnection,
    chain_id: ChainId,
    evidence: &Evidence,
) -> Result<bool, DbError> {
    let head = sqlx::query_scalar!(
        "select number from chain_head where chain_id = $1 for share",
        chain_id.to_string()
    )
    .fetch_optional(&mut *conn)
    .await
    .during("hold the head")?;
    let Some(head) = head.map(db::number).transpose()? else { return Ok(false) };
    // Blocks that are no longer kept are finalized, or older than our reading of the chain.
    Ok(match applied_block(conn, chain_id, evidence.block_number).await? {
        Some(hash) => hash == evidence.block_hash,
        None => evidence.block_number < head,
    })
}

/// Moves the head back from `tip` to `ancestor`, and returns the blocks that it leaves. `None` if
/// the head is not at `tip` any more.
pub(super) async fn rewind(
    conn: &mut PgConnection,
    chain_id: ChainId,
    tip: Tip,
    ancestor: &Block,
) -> Result<Option<Vec<B256>>, DbError> {
    let chain = chain_id.to_string();
    let ancestor_number = db::height(ancestor.number)?;
    let moved = sqlx::query!(
        "update chain_head set number = $2, hash = $3 where chain_id = $1 and hash = $4",
        chain,
        ancestor_number,
        ancestor.hash.as_slice(),
        tip.hash.as_slice(),
    )
    .execute(&mut *conn)
    .await
    .during("rewind the head")?;
    if moved.rows_affected() == 0 {
        return Ok(None);
    }
    let left = sqlx::query_scalar!(
        "delete from chain_block where chain_id = $1 and number > $2 returning hash",
        chain,
        ancestor_number,
    )
    .fetch_all(&mut *conn)
    .await
    .during("forget orphaned blocks")?;
    insert_block(conn, chain_id, ancestor).await?;
    left.iter().map(|hash| db::hash(hash)).collect::<Result<_, _>>().map(Some)
}

/// An open transaction of ours that stands in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MinedTransaction {
    pub(super) transaction_id: i64,
    pub(super) hash: B256,
    pub(super) wallet: Address,
    pub(super) settlement_ids: Vec<SettlementId>,
}

/// Which of `hashes` are attempts of our open transactions.
pub(super) async fn ours_among(
    conn: &mut PgConnection,
    chain_id: ChainId,
    hashes: &[B256],
) -> Result<Vec<MinedTransaction>, DbError> {
    let hashes: Vec<Vec<u8>> = hashes.iter().map(|hash| hash.to_vec()).collect();
    let rows = sqlx::query!(
        r#"
        select transaction_id, transaction_hash, address, array(
            select settlement_id from transaction_item
            where transaction_item.transaction_id = transaction.transaction_id
            order by item_index) as "settlement_ids!"
        from attempt join transaction using (transaction_id) join wallet using (wallet_id)
        where transaction.chain_id = $1 and status = 'open' and transaction_hash = any($2)
        order by transaction_id
        "#,
        chain_id.to_string(),
        &hashes,
    )
    .fetch_all(conn)
    .await
    .during("find our transactions in a block")?;
    rows.into_iter()
        .map(|row| {
            Ok(MinedTransaction {
                transaction_id: row.transaction_id,
                hash: db::hash(&row.transaction_hash)?,
                wallet: db::address(&row.address)?,
                settlement_ids: row
                    .settlement_ids
                    .into_iter()
                    .map(SettlementId::from_uuid)
                    .collect(),
            })
        })
        .collect()
}

/// Marks a transaction mined by one of its attempts.
pub(super) async fn mark_mined(
    conn: &mut PgConnection,
    transaction_id: i64,
    hash: B256,
    block: &Block,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update transaction
        set status = 'mined', mined_hash = $2, block_hash = $3, block_number = $4
        where transaction_id = $1
        ",
        transaction_id,
        hash.as_slice(),
        block.hash.as_slice(),
        db::height(block.number)?,
    )
    .execute(conn)
    .await
    .during("mark a transaction mined")?;
    Ok(())
}

/// Opens again the transactions that were mined above `ancestor`.
pub(super) async fn reopen(
    conn: &mut PgConnection,
    chain_id: ChainId,
    ancestor: u64,
) -> Result<Vec<i64>, DbError> {
    sqlx::query_scalar!(
        "
        update transaction
        set status = 'open', mined_hash = null, block_hash = null, block_number = null
        where chain_id = $1 and status = 'mined' and block_number > $2
        returning transaction_id
        ",
        chain_id.to_string(),
        db::height(ancestor)?,
    )
    .fetch_all(conn)
    .await
    .during("reopen transactions")
}

/// Records the safe and finalized heights, and lets go of what they settle for good.
pub(super) async fn settle_heights(
    conn: &mut PgConnection,
    chain_id: ChainId,
    safe: u64,
    finalized: u64,
) -> Result<(), DbError> {
    let (chain, finalized) = (chain_id.to_string(), db::height(finalized)?);
    sqlx::query!(
        "update chain_head set safe_number = $2, finalized_number = $3 where chain_id = $1",
        chain,
        db::height(safe)?,
        finalized,
    )
    .execute(&mut *conn)
    .await
    .during("record the finalized height")?;
    sqlx::query!(
        "
        update transaction set status = 'finalized'
        where chain_id = $1 and status = 'mined' and block_number <= $2
        ",
        chain,
        finalized,
    )
    .execute(&mut *conn)
    .await
    .during("finalize transactions")?;
    sqlx::query!("delete from chain_block where chain_id = $1 and number < $2", chain, finalized)
        .execute(conn)
        .await
        .during("forget finalized blocks")?;
    Ok(())
}

/// What on a chain is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// Something is claimed, submitted or unmined: the next block may concern it.
    pub(super) is_busy: bool,
    /// Something is included or mined but not finalized: a reorganization may concern it.
    pub(super) is_unsettled: bool,
}

/// Whether blocks can still concern us.
pub(super) async fn unfinished(
    conn: &mut PgConnection,
    chain_id: ChainId,
) -> Result<Unfinished, DbError> {
    sqlx::query_as!(
        Unfinished,
        r#"
        select
            exists (select from settlement
                    where chain_id = $1 and status in ('claimed', 'submitted'))
                or exists (select from transaction join wallet using (wallet_id)
                    where transaction.chain_id = $1 and status = 'open') as "is_busy!",
            exists (select from settlement where chain_id = $1 and status in ('included', 'safe'))
                or exists (select from transaction where chain_id = $1 and status = 'mined')
                as "is_unsettled!"
        "#,
        chain_id.to_string(),
    )
    .fetch_one(conn)
    .await
    .during("look for unfinished work")
}

/// The tokens whose events can concern a settlement in a block of that time.
pub(super) async fn watched_assets(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block_time: UnixTime,
) -> Result<Vec<Address>, DbError> {
    let assets = sqlx::query_scalar!(
        r#"
        select asset as "asset!" from settlement
            where chain_id = $1 and status in ('claimed', 'submitted')
        union
        select asset from settlement
            where chain_id = $1 and status = 'failed' and valid_before > $2::text::numeric
        "#,
        chain_id.to_string(),
        block_time.to_string(),
    )
    .fetch_all(conn)
    .await
    .during("read watched assets")?;
    assets.iter().map(|asset| db::address(asset)).collect()
}

/// The settlements whose authorizations `events` used up.
pub(super) async fn settlements_of(
    conn: &mut PgConnection,
    chain_id: ChainId,
    events: &[TokenEvent],
) -> Result<Vec<SettlementId>, DbError> {
    let column = |read: fn(&TokenEvent) -> &[u8]| -> Vec<Vec<u8>> {
        events.iter().map(|event| read(event).to_vec()).collect()
    };
    let found = sqlx::query_scalar!(
        "
        select settlement_id
        from unnest($2::bytea[], $3::bytea[], $4::bytea[]) as used (asset, payer, authorization_nonce)
            join settlement using (asset, payer, authorization_nonce)
        where chain_id = $1
        ",
        chain_id.to_string(),
        &column(|event| event.asset.as_slice()),
        &column(|event| event.payer.as_slice()),
        &column(|event| event.nonce.as_bytes().as_slice()),
    )
    .fetch_all(conn)
    .await
    .during("find settlements by events")?;
    Ok(found.into_iter().map(SettlementId::from_uuid).collect())
}

/// The unfinished settlements that no block from `block_time` on can pay any more.
pub(super) async fn expired(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block_time: UnixTime,
) -> Result<Vec<SettlementId>, DbError> {
    let found = sqlx::query_scalar!(
        "
        select settlement_id from settlement
        where chain_id = $1 and status in ('claimed', 'submitted')
            and valid_before <= $2::text::numeric
        ",
        chain_id.to_string(),
        block_time.to_string(),
    )
    .fetch_all(conn)
    .await
    .during("find expired settlements")?;
    Ok(found.into_iter().map(SettlementId::from_uuid).collect())
}
