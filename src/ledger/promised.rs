//! What payers have promised already: for verification, a list of payments at a time.

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;

use crate::{
    db::{self, DbError, During},
    domain::{
        Amount, AmountError, Authorization, AuthorizationNonce, ChainId, SettlementStatus, UnixTime,
    },
};

/// How many of the newest applied blocks are told one by one: more than what is verified by can be
/// behind them.
const N_NEWEST_BLOCKS: i64 = 32;

/// One payment that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PromiseKey {
    /// The token.
    pub asset: Address,
    /// Who signed.
    pub payer: Address,
    /// Which authorization.
    pub nonce: AuthorizationNonce,
}

impl PromiseKey {
    /// Of that authorization of `asset`.
    pub const fn of(asset: Address, authorization: &Authorization) -> Self {
        Self { asset, payer: authorization.payer, nonce: authorization.nonce }
    }
}

/// What the books hold against one payment. Sums stop at the largest amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// Where the settlement of this very authorization stands, if it was ever claimed.
    pub claimed: Option<SettlementStatus>,
    /// What the payer's other claims will take of this asset: those that no applied block holds and
    /// the next block can still pay.
    pub unmined: Amount,
    /// What the payer's other settlements took of this asset in the newest applied blocks, by block.
    pub mined: Vec<(u64, Amount)>,
}

impl Promised {
    /// Nothing was promised.
    pub const NOTHING: Self = Self { claimed: None, unmined: Amount::ZERO, mined: Vec::new() };
}

/// What the books hold against a list of payments, all of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promises {
    /// The newest block that the books know. Far behind the chain while nothing is under way.
    pub applied_head: Option<u64>,
    /// One for each payment, in the order in which they were asked about.
    pub promised: Vec<Promised>,
}

/// What the books hold against those payments on one chain. `now` is the time of the block that they are
/// verified by: what has expired there, no block after it pays.
pub async fn promised(
    conn: &mut PgConnection,
    chain_id: ChainId,
    keys: &[PromiseKey],
    now: UnixTime,
) -> Result<Promises, DbError> {
    let column = |read: fn(&PromiseKey) -> &[u8]| -> Vec<Vec<u8>> {
        keys.iter().map(|key| read(key).to_vec()).collect()
    };
    // Summed once for each payer: all of a list can be one payer's, who may have thousands of claims.
    let rows = sqlx::query_as!(
        Row,
        r#"
        with head as (
            select number from chain_head where chain_id = $1),
        asked as (
            select * from unnest($2::bytea[], $3::bytea[], $4::bytea[])
                with ordinality as asked (asset, payer, authorization_nonce, position)),
        account as (
            select distinct asset, payer from asked),
        outflow as materialized (
            select asset, payer, unmined.total as unmined, mined.blocks, mined.totals
            from account
                cross join lateral (
                    select sum(amount) as total from settlement
                    where chain_id = $1 and asset = account.asset and payer = account.payer
                        and status in ('claimed', 'submitted')
                        and valid_before > $5::text::numeric) as unmined
                cross join lateral (
                    select array_agg(block_number) as blocks, array_agg(total::text) as totals
                    from (
                        select block_number, sum(amount) as total from settlement
                        where chain_id = $1 and asset = account.asset and payer = account.payer
                            and status in ('included', 'safe', 'finalized')
                            and block_number > (select number from head) - $6
                        group by block_number
                        order by block_number) as newest) as mined)
        select (select number from head) as applied_head, own.status as "status?",
            own.block_number as "block_number?", own.amount::text as "amount?",
            own.valid_before > $5::text::numeric as is_payable, outflow.unmined::text as unmined,
            outflow.blocks, outflow.totals
        from asked
            join outflow using (asset, payer)
            left join settlement own on own.chain_id = $1 and own.asset = asked.asset
                and own.payer = asked.payer
                and own.authorization_nonce = asked.authorization_nonce
        order by position
        "#,
        chain_id.to_string(),
        &column(|key| key.asset.as_slice()),
        &column(|key| key.payer.as_slice()),
        &column(|key| key.nonce.as_bytes().as_slice()),
        now.to_string(),
        N_NEWEST_BLOCKS,
    )
    .fetch_all(conn)
    .await
    .during("read what is promised")?;
    let applied_head = rows.first().and_then(|row| row.applied_head).map(db::number).transpose()?;
    let promised = rows.into_iter().map(Promised::try_from).collect::<Result<_, _>>()?;
    Ok(Promises { applied_head, promised })
}

struct Row {
    applied_head: Option<i64>,
    /// Of this very authorization, like the three after it.
    status: Option<String>,
    block_number: Option<i64>,
    amount: Option<String>,
    is_payable: Option<bool>,
    /// Of its payer, like the two after it.
    unmined: Option<String>,
    blocks: Option<Vec<i64>>,
    totals: Option<Vec<String>>,
}

impl TryFrom<Row> for Promised {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let claimed = row.status.as_deref().map(SettlementStatus::parse).transpose();
        let claimed =
            claimed.map_err(|e| sqlx::Error::Decode(e.into())).during("read a promise")?;
        let own = row.amount.as_deref().map_or(Ok(Amount::ZERO), db::amount)?;
        let total = row.unmined.as_deref().map_or(Ok(Amount::ZERO), sum)?;
        let is_unmined =
            matches!(claimed, Some(SettlementStatus::Claimed | SettlementStatus::Submitted));
        let is_in_total = is_unmined && row.is_payable == Some(true);
        let unmined = if is_in_total { less(total, own) } else { total };
        let (blocks, totals) = (row.blocks.unwrap_or_default(), row.totals.unwrap_or_default());
        let mut mined = Vec::with_capacity(blocks.len());
        for (block, total) in blocks.into_iter().zip(&totals) {
            let total = sum(total)?;
            let others = if row.block_number == Some(block) { less(total, own) } else { total };
            if others != Amount::ZERO {
                mined.push((db::number(block)?, others));
            }
        }
        Ok(Self { claimed, unmined, mined })
    }
}

/// A sum of `numeric(78, 0)`, read as text. It can be more than the largest amount.
fn sum(text: &str) -> Result<Amount, DbError> {
    match Amount::parse(text) {
        Err(AmountError::TooLarge) => Ok(Amount::from_base_units(U256::MAX)),
        _ => db::amount(text),
    }
}

fn less(total: Amount, own: Amount) -> Amount {
    Amount::from_base_units(total.base_units().saturating_sub(own.base_units()))
}
