//! How far each chain was read, and the blocks that can still be replaced.

use alloy::primitives::B256;
use sqlx::PgConnection;

use crate::{
    chain::Block,
    db::{self, DbError, During},
    domain::{ChainId, Evidence},
};

/// The last block that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Tip {
    pub(in crate::engine) number: u64,
    pub(in crate::engine) hash: B256,
}

/// How far a chain was read.
pub(in crate::engine) async fn tip(
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
pub(in crate::engine) async fn start_at(
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

/// Keeps the head where it is until the surrounding transaction ends. `false` if it is not at `tip`.
pub(in crate::engine) async fn hold_tip(
    conn: &mut PgConnection,
    chain_id: ChainId,
    tip: Tip,
) -> Result<bool, DbError> {
    let held = sqlx::query_scalar!(
        "select number from chain_head where chain_id = $1 and hash = $2 for update",
        chain_id.to_string(),
        tip.hash.as_slice(),
    )
    .fetch_optional(conn)
    .await
    .during("hold the head")?;
    Ok(held.is_some())
}

/// Moves the head from `from`, the parent of `block`, to `block`. `false` if it is not there: then
/// nothing of this block may be written.
pub(in crate::engine) async fn advance(
    conn: &mut PgConnection,
    chain_id: ChainId,
    block: &Block,
    from: B256,
) -> Result<bool, DbError> {
    let moved = sqlx::query!(
        "update chain_head set number = $2, hash = $3 where chain_id = $1 and hash = $4",
        chain_id.to_string(),
        db::height(block.number)?,
        block.hash.as_slice(),
        from.as_slice(),
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
        on conflict (chain_id, number)
            do update set hash = excluded.hash, parent_hash = excluded.parent_hash
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
pub(in crate::engine) async fn applied_block(
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
pub(in crate::engine) async fn finalized_number(
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
pub(in crate::engine) async fn is_canonical(
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
pub(in crate::engine) async fn rewind(
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

/// Records the safe and finalized heights, and lets go of what they settle for good.
pub(in crate::engine) async fn settle_heights(
    conn: &mut PgConnection,
    chain_id: ChainId,
    safe: u64,
    finalized: u64,
) -> Result<(), DbError> {
    let (chain, finalized) = (chain_id.to_string(), db::height(finalized)?);
    sqlx::query!(
        "
        update chain_head set safe_number = greatest(safe_number, $2),
            finalized_number = greatest(finalized_number, $3)
        where chain_id = $1
        ",
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
