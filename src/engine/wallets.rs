//! Which wallets this process works with: takes the leases of those it has keys for, shares them
//! fairly with the other processes, and runs a loop for each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use alloy::primitives::Address;
use futures_util::{StreamExt, stream::FuturesUnordered};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{BlockNumberOrTag, Chain},
    db::During,
    telemetry::causes,
};

use super::{
    Engine, EngineError, N_QUEUED_MAX, Wallet,
    desk::Desk,
    outcomes,
    store::{self, WalletRow, WalletStatus},
};

/// How often the wallets are looked through: one may be added, or left by its owner.
const SURVEY_INTERVAL: Duration = Duration::from_secs(1);
/// How often the endpoints are looked at.
const ENDPOINTS_INTERVAL: Duration = Duration::from_secs(2);
/// The least time between two notifications to other processes: Postgres puts commits that notify
/// in a row.
const HINT_INTERVAL: Duration = Duration::from_millis(20);
/// How many wallets may be handed from the survey to their loops at a time.
const N_HANDED_OVER_MAX: usize = 16;

/// The wallets of this process, and how to stop each.
#[derive(Debug, Default)]
struct Held(Mutex<BTreeMap<i32, CancellationToken>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Runs wallets until `stop`.
    pub async fn run_wallets(&self, stop: &CancellationToken) {
        let held = Held::default();
        let (handed_over, taken) = mpsc::channel(N_HANDED_OVER_MAX);
        tokio::join!(
            self.survey_until(&held, handed_over, stop),
            self.work_until(&held, taken, stop),
            self.hint_until(stop),
            self.watch_endpoints_until(stop),
        );
    }

    /// Keeps an eye on the endpoints, so that reads and sends go to those that are fit.
    async fn watch_endpoints_until(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            self.chain.survey().await;
            tokio::select! {
                () = stop.cancelled() => (),
                () = tokio::time::sleep(ENDPOINTS_INTERVAL) => (),
            }
        }
    }

    /// Looks for wallets that nobody works with.
    async fn survey_until(
        &self,
        held: &Held,
        handed_over: mpsc::Sender<Desk>,
        stop: &CancellationToken,
    ) {
        while !stop.is_cancelled() {
            if let Err(error) = Self::bounded(self.survey(held, &handed_over)).await {
                self.complain(&error);
            }
            tokio::select! {
                () = stop.cancelled() => (),
                () = tokio::time::sleep(SURVEY_INTERVAL) => (),
            }
        }
        let left = async {
            let mut conn = self.pool.acquire().await.during("leave the replicas")?;
            store::leave_replicas(&mut conn, self.replica_id).await
        };
        if let Err(error) = left.await {
            tracing::warn!(error = causes(&error), "could not leave the replicas");
        }
    }

    /// Runs a loop for each wallet that is handed over, and ends with the last of them.
    async fn work_until(
        &self,
        held: &Held,
        mut taken: mpsc::Receiver<Desk>,
        stop: &CancellationToken,
    ) {
        let mut loops = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(desk) = taken.recv() => {
                    let stop = stop.child_token();
                    held.lock().insert(desk.wallet_id, stop.clone());
                    loops.push(self.run_wallet(desk, stop));
                }
                Some(wallet_id) = loops.next() => {
                    held.lock().remove(&wallet_id);
                    self.health.wallet_left(wallet_id);
                }
                else => break,
            }
        }
    }

    /// Tells the other processes that there is work for them, whenever somebody asked for it.
    async fn hint_until(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.hint.notified() => (),
            }
            let announced = async {
                let mut conn = self.pool.acquire().await.during("announce work")?;
                outcomes::announce(&mut conn, self.chain.chain_id()).await
            };
            if let Err(error) = announced.await {
                tracing::warn!(error = causes(&error), "could not announce work");
            }
            tokio::time::sleep(HINT_INTERVAL).await;
        }
    }

    /// Takes the free wallets that are our share, and gives back what is more than that. Each is handed
    /// over at once: a lease that waits for the others' keys, or for trouble with them, may end.
    async fn survey(
        &self,
        held: &Held,
        handed_over: &mpsc::Sender<Desk>,
    ) -> Result<(), EngineError> {
        let chain_id = self.chain.chain_id();
        let mut conn = self.pool.acquire().await.during("look through the wallets")?;
        let mut rows = store::wallets(&mut conn, Some(chain_id)).await?;
        let mut troubles = Vec::new();
        if let Some(address) = self.keys.configured()
            && rows.iter().all(|row| row.address != address)
        {
            drop(conn);
            troubles.extend(register_wallet(&self.chain, &self.pool, address).await.err());
            conn = self.pool.acquire().await.during("look through the wallets")?;
            rows = store::wallets(&mut conn, Some(chain_id)).await?;
        }
        // A reorganization can open a transaction of a retired wallet again.
        rows.retain(|row| row.status != WalletStatus::Retired || row.n_open > 0);
        let n_replicas =
            store::count_replicas(&mut conn, self.replica_id, self.options.lease).await?;
        let n_queued = store::queue_length(&mut conn, chain_id, N_QUEUED_MAX).await?;
        drop(conn);
        self.take_note(&rows, n_queued, held);

        let share = rows.len().div_ceil(n_replicas.max(1));
        let mut n_held = held.lock().len();
        for row in rows.iter().filter(|row| !row.is_leased) {
            if n_held >= share {
                break;
            }
            match self.take(row).await {
                Ok(Some(desk)) => {
                    n_held = n_held.saturating_add(1);
                    // A closed channel means that the process is stopping; the lease ends alone.
                    let _ = handed_over.send(desk).await;
                }
                Ok(None) => (),
                // A key that cannot be had is no trouble with the other wallets.
                Err(error) => troubles.push(error),
            }
        }
        let surplus = n_held.saturating_sub(share);
        for stop in held.lock().values().rev().take(surplus) {
            stop.cancel();
        }
        for trouble in &troubles {
            self.complain(trouble);
        }
        Ok(())
    }

    /// Takes a wallet that nobody works with, if a source of this process has its key.
    async fn take(&self, row: &WalletRow) -> Result<Option<Desk>, EngineError> {
        let Some(wallet) = self.key_of(row.address).await? else { return Ok(None) };
        self.chain.check().await?;
        let lease = self.acquire(&format!("wallet:{}", row.wallet_id)).await?;
        Ok(lease.map(|lease| Desk::new(row.wallet_id, wallet, lease)))
    }

    fn complain(&self, error: &EngineError) {
        self.health.staff_failed(error.to_string());
        tracing::warn!(
            error = causes(error), chain.id = %self.chain.chain_id(), "could not look through the wallets"
        );
    }

    fn take_note(&self, rows: &[WalletRow], n_queued: usize, held: &Held) {
        let active = || rows.iter().filter(|row| row.status == WalletStatus::Active);
        let is_ours = |row: &&WalletRow| held.lock().contains_key(&row.wallet_id);
        self.n_signing.store(active().filter(is_ours).count(), Ordering::Relaxed);
        self.is_shared.store(active().count() > 1, Ordering::Relaxed);
        self.n_queued.store(n_queued, Ordering::Relaxed);
        *self.lock_addresses() = rows.iter().map(|row| row.address).collect();
        let chain_id = self.chain.chain_id();
        metrics::gauge!("quittance_queue_length", "chain" => chain_id.to_string())
            .set(u32::try_from(n_queued).unwrap_or(u32::MAX));
        if active().next().is_none() {
            let why = rows.first().map(|row| {
                let reason = row.status_reason.as_deref().unwrap_or("by an operator");
                format!("{} is {} ({reason})", row.address, row.status.as_str())
            });
            let why = why.unwrap_or_else(|| "none is there: `quittance wallet add`".to_owned());
            self.health.staff_failed(format!("no wallet signs: {why}"));
        } else if active().any(|row| row.is_leased) {
            self.health.staff_succeeded();
        } else {
            self.health.staff_failed("no process works with an active wallet".to_owned());
        }
    }

    async fn key_of(&self, address: Address) -> Result<Option<Wallet>, EngineError> {
        let keys = Arc::clone(&self.keys);
        let found = tokio::task::spawn_blocking(move || keys.find(address)).await;
        Ok(found.map_err(|_| EngineError::Panicked)??)
    }

    /// One wallet's life with us: until we lose it, give it back, or stop.
    async fn run_wallet(&self, mut desk: Desk, stop: CancellationToken) -> i32 {
        let (wallet_id, lease) = (desk.wallet_id, desk.lease.clone());
        tokio::select! {
            () = self.keep(&lease) => (),
            () = self.work_at(&mut desk, &stop) => (),
        }
        self.release(&lease).await;
        wallet_id
    }
}

/// Registers a wallet, at the account nonce that the chain tells.
///
/// # Errors
/// When the account cannot be a hot wallet now: see [`EngineError::HasCode`] and
/// [`EngineError::PendingTransactions`].
pub async fn register_wallet(
    chain: &Chain,
    pool: &PgPool,
    address: Address,
) -> Result<(), EngineError> {
    let account_nonce = usable_account_nonce(chain, address).await?;
    let mut conn = pool.acquire().await.during("register a wallet")?;
    Ok(store::ensure_wallet(&mut conn, chain.chain_id(), address, account_nonce).await?)
}

/// Moves a wallet that was out of our hands to `status`, and skips the account nonces that were used
/// meanwhile. Returns the account's nonce by the chain; `None`, and nothing is changed, if the wallet
/// does not stand any more as `row` says.
///
/// # Errors
/// As [`register_wallet`], where it is to sign again.
pub async fn reinstate_wallet(
    chain: &Chain,
    pool: &PgPool,
    row: &WalletRow,
    status: WalletStatus,
) -> Result<Option<u64>, EngineError> {
    let account_nonce = if status == WalletStatus::Active {
        usable_account_nonce(chain, row.address).await?
    } else {
        chain.check().await?;
        chain.account_nonce_at(row.address, BlockNumberOrTag::Latest).await?
    };
    let mut db = pool.begin().await.during("reinstate a wallet")?;
    if !store::set_wallet_status(&mut db, row.wallet_id, &[row.status], status, None).await? {
        return Ok(None);
    }
    store::skip_account_nonces(&mut db, row.wallet_id, account_nonce).await?;
    db.commit().await.during("reinstate a wallet")?;
    Ok(Some(account_nonce))
}

/// The account's nonce, if the account can be a hot wallet.
async fn usable_account_nonce(chain: &Chain, address: Address) -> Result<u64, EngineError> {
    chain.check().await?;
    if !chain.code(address).await?.is_empty() {
        return Err(EngineError::HasCode { address });
    }
    let mined = chain.account_nonce_at(address, BlockNumberOrTag::Latest).await?;
    let pending = chain.account_nonce_at(address, BlockNumberOrTag::Pending).await?;
    if pending > mined {
        return Err(EngineError::PendingTransactions { address, n: pending.saturating_sub(mined) });
    }
    Ok(mined)
}
