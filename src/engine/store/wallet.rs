//! The rows of wallets.

use alloy::primitives::Address;
use sqlx::PgConnection;

use crate::{
    db::{self, DbError, During},
    domain::ChainId,
};

use super::Tip;

/// Whether a wallet signs.
///
/// ```text
/// active ⇄ paused        by an operator
/// active → draining → retired   by an operator, then when nothing of it is open; `add` brings it back
/// any → quarantined      its key was used elsewhere; an operator resumes or drains it
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalletStatus {
    /// It signs.
    Active,
    /// An operator stopped it. What is open is followed.
    Paused,
    /// It signs nothing new, and retires when nothing of it is open.
    Draining,
    /// It is not used any more.
    Retired,
    /// Somebody else used its key: it signs nothing until an operator has looked.
    Quarantined,
}

/// A status that the database should not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown wallet status {0:?}")]
struct UnknownWalletStatus(String);

impl WalletStatus {
    /// The word in the database and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Quarantined => "quarantined",
        }
    }

    fn parse(text: &str) -> Result<Self, UnknownWalletStatus> {
        [Self::Active, Self::Paused, Self::Draining, Self::Retired, Self::Quarantined]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownWalletStatus(text.to_owned()))
    }
}

/// A wallet's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletRow {
    /// The id that leases and transactions use.
    pub wallet_id: i32,
    /// The chain it pays gas on.
    pub chain_id: ChainId,
    /// The account.
    pub address: Address,
    /// Whether it signs.
    pub status: WalletStatus,
    /// Why not, where a person or the engine said so.
    pub status_reason: Option<String>,
    /// The account nonce of its next transaction.
    pub next_account_nonce: u64,
    /// How many of its transactions no block has taken yet.
    pub n_open: u64,
    /// The epoch of its lease, and whether somebody holds it.
    pub epoch: Option<i64>,
    /// Whether some process works with it.
    pub is_leased: bool,
}

struct Row {
    wallet_id: i32,
    chain_id: String,
    address: Vec<u8>,
    status: String,
    status_reason: Option<String>,
    next_account_nonce: i64,
    n_open: i64,
    epoch: Option<i64>,
    is_leased: bool,
}

impl TryFrom<Row> for WalletRow {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        Ok(Self {
            wallet_id: row.wallet_id,
            chain_id: db::chain_id(&row.chain_id)?,
            address: db::address(&row.address)?,
            status: WalletStatus::parse(&row.status)
                .map_err(|error: UnknownWalletStatus| sqlx::Error::Decode(error.into()))
                .during("read a wallet")?,
            status_reason: row.status_reason,
            next_account_nonce: db::number(row.next_account_nonce)?,
            n_open: db::number(row.n_open)?,
            epoch: row.epoch,
            is_leased: row.is_leased,
        })
    }
}

/// The wallets of a chain, or of all, oldest first.
pub async fn wallets(
    conn: &mut PgConnection,
    chain_id: Option<ChainId>,
) -> Result<Vec<WalletRow>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select wallet_id, chain_id, address, status, status_reason, next_account_nonce,
            (select count(*) from transaction
                where transaction.wallet_id = wallet.wallet_id and transaction.status = 'open')
                as "n_open!",
            epoch as "epoch?", coalesce(held_until > now(), false) as "is_leased!"
        from wallet left join lease on lease_name = 'wallet:' || wallet_id
        where $1::text is null or chain_id = $1
        order by wallet_id
        "#,
        chain_id.map(|chain_id| chain_id.to_string()),
    )
    .fetch_all(conn)
    .await
    .during("read wallets")?;
    rows.into_iter().map(WalletRow::try_from).collect()
}

/// Registers a wallet at `account_nonce` unless it is there.
pub async fn ensure_wallet(
    conn: &mut PgConnection,
    chain_id: ChainId,
    address: Address,
    account_nonce: u64,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        insert into wallet (chain_id, address, next_account_nonce) values ($1, $2, $3)
        on conflict (chain_id, address) do nothing
        ",
        chain_id.to_string(),
        address.as_slice(),
        db::height(account_nonce)?,
    )
    .execute(conn)
    .await
    .during("register a wallet")?;
    Ok(())
}

/// Moves a wallet from one of `expected` to `status`. `false` if it stands elsewhere.
pub async fn set_wallet_status(
    conn: &mut PgConnection,
    wallet_id: i32,
    expected: &[WalletStatus],
    status: WalletStatus,
    reason: Option<&str>,
) -> Result<bool, DbError> {
    let expected: Vec<String> = expected.iter().map(|s| s.as_str().to_owned()).collect();
    let moved = sqlx::query!(
        "
        update wallet set status = $3, status_reason = $4
        where wallet_id = $1 and status = any($2)
        ",
        wallet_id,
        &expected,
        status.as_str(),
        reason,
    )
    .execute(conn)
    .await
    .during("change a wallet's status")?;
    Ok(moved.rows_affected() == 1)
}

/// Skips the account nonces below `account_nonce`, which somebody else used. It never goes back.
pub(in crate::engine) async fn skip_account_nonces(
    conn: &mut PgConnection,
    wallet_id: i32,
    account_nonce: u64,
) -> Result<(), DbError> {
    sqlx::query!(
        "
        update wallet set next_account_nonce = greatest(next_account_nonce, $2)
        where wallet_id = $1
        ",
        wallet_id,
        db::height(account_nonce)?,
    )
    .execute(conn)
    .await
    .during("skip account nonces")?;
    Ok(())
}

/// What a wallet's loop looks at first: itself, and how far its chain was read, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct WalletView {
    /// Whether it signs.
    pub(in crate::engine) status: WalletStatus,
    /// The account nonce of its next transaction.
    pub(in crate::engine) next_account_nonce: u64,
    /// The applied head, once there is one.
    pub(in crate::engine) head: Option<Tip>,
}

/// Reads it.
pub(in crate::engine) async fn wallet_view(
    conn: &mut PgConnection,
    wallet_id: i32,
) -> Result<WalletView, DbError> {
    let row = sqlx::query!(
        r#"
        select status, next_account_nonce, number as "number?", hash as "hash?"
        from wallet left join chain_head using (chain_id)
        where wallet_id = $1
        "#,
        wallet_id,
    )
    .fetch_one(conn)
    .await
    .during("read a wallet")?;
    let head = match (row.number, row.hash) {
        (Some(number), Some(hash)) => {
            Some(Tip { number: db::number(number)?, hash: db::hash(&hash)? })
        }
        _ => None,
    };
    Ok(WalletView {
        status: WalletStatus::parse(&row.status)
            .map_err(|error: UnknownWalletStatus| sqlx::Error::Decode(error.into()))
            .during("read a wallet")?,
        next_account_nonce: db::number(row.next_account_nonce)?,
        head,
    })
}
