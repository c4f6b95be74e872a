//! What payers have promised already, told to verifications a list at a time.
//!
//! The books know. Where Redis is configured, they are asked less: a claim marks its payer there before it
//! is committed, so a payer without a mark has promised nothing. That is believed only while all of this
//! holds; in every other case the books are asked, so that losing Redis changes no answer:
//!
//! - The books say that the generation of marks is *trusted*. A claim that could not mark its payer takes
//!   that back, in its own database transaction.
//! - Redis, in the same breath in which it tells the marks, is the server at which that generation began
//!   and still has the generation's key: nothing was deleted, evicted, restored or failed over since.
//!
//! A generation begins in the books, then in Redis. Then whoever begins it waits for the end of every
//! database transaction that had written something by then: later claims mark their payers in the new
//! generation, or take the trust back. Those that have ended are in the books, from which their payers are
//! marked. Only then the generation is trusted, once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy::primitives::{Address, U256};
use futures_util::{TryStreamExt as _, future::join_all};
use sqlx::{Acquire as _, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    db::{DbError, During},
    domain::{ChainId, UnixTime},
    ledger::{self, Filter, FilterState, LiveAccount, PromiseKey, Promised},
    promises::{Account, Marks, RedisError, Server},
    telemetry::causes,
    verify::Terms,
};

/// How much longer than its authorization can count a mark lives, by the database's clock.
const LIFETIME_MARGIN: Duration = Duration::from_secs(15 * 60);
/// How old a block may be to be verified by with the help of marks. What expired before it does not
/// count; five minutes less than the margin, for the difference between clocks.
const BLOCK_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// How often Redis is looked after.
const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// How soon, when marks were found lost.
const LOSS_INTERVAL: Duration = Duration::from_millis(100);
/// How long database transactions may take to end before a generation is given up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether they have.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);
/// How many connections are kept for lists: one for the call that reads the books while the others read
/// the chain, and one more.
const N_CONNECTIONS_KEPT: usize = 2;
/// How many payers are marked in one call.
const N_MARKED_AT_ONCE: usize = 500;

/// Answers what payers have promised. One per process.
#[derive(Debug)]
pub struct Promises {
    pool: PgPool,
    kept: Mutex<Vec<PoolConnection<Postgres>>>,
    marks: Option<Marks>,
    /// Wakes the loop: marks were lost.
    lost: Notify,
}

/// A claim about to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The token.
    pub asset: Address,
    /// Who signed.
    pub payer: Address,
    /// When the authorization expires.
    pub valid_before: U256,
}

impl From<&Terms> for Announced {
    fn from(terms: &Terms) -> Self {
        let authorization = terms.authorization();
        Self {
            asset: terms.requirements().asset,
            payer: authorization.payer,
            valid_before: authorization.valid_before,
        }
    }
}

/// What kept a generation from being built.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("another Redis server answers than the one that was asked before")]
    AnotherServer,
    #[error("database transactions did not end within {} seconds", SETTLE_TIMEOUT.as_secs())]
    Unsettled,
}

impl Promises {
    /// Without `marks` the books answer everything.
    pub const fn new(pool: PgPool, marks: Option<Marks>) -> Self {
        Self { pool, kept: Mutex::new(Vec::new()), marks, lost: Notify::const_new() }
    }

    /// What was promised against those payments on one chain, which are verified by what the block `number`, of
    /// that time, says.
    pub async fn of(
        &self,
        chain_id: ChainId,
        number: u64,
        time: UnixTime,
        keys: &[PromiseKey],
    ) -> Result<ledger::Promises, DbError> {
        let kept = self.kept().pop();
        if let Some(mut conn) = kept
            && let Ok(told) = self.read(&mut conn, chain_id, (number, time), keys).await
        {
            self.keep(conn);
            return Ok(told);
        }
        // None was kept, or it broke meanwhile; the pool tries those that it gives out.
        let mut conn = self.pool.acquire().await.during("read what is promised")?;
        let told = self.read(&mut conn, chain_id, (number, time), keys).await?;
        self.keep(conn);
        Ok(told)
    }

    /// Keeps a connection for the next list: the pool asks the server twice more for each use.
    fn keep(&self, conn: PoolConnection<Postgres>) {
        let mut kept = self.kept();
        if kept.len() < N_CONNECTIONS_KEPT {
            kept.push(conn);
        }
    }

    /// Gives back what is kept, so that the pool can be closed. Nobody may ask any more.
    pub fn let_go(&self) {
        self.kept().clear();
    }

    fn kept(&self) -> MutexGuard<'_, Vec<PoolConnection<Postgres>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(
        &self,
        conn: &mut PgConnection,
        chain_id: ChainId,
        (number, time): (u64, UnixTime),
        keys: &[PromiseKey],
    ) -> Result<ledger::Promises, DbError> {
        let Some((applied_head, maybe)) = self.marked(conn, chain_id, (number, time), keys).await?
        else {
            count("postgres");
            return ledger::promised(conn, chain_id, keys, time).await;
        };
        count("redis");
        let nothing = vec![Promised::NOTHING; keys.len()];
        let mut all = ledger::Promises { applied_head, promised: nothing };
        if maybe.is_empty() {
            return Ok(all);
        }
        let asked: Vec<PromiseKey> = maybe.iter().map(|(_, key)| *key).collect();
        let told = ledger::promised(conn, chain_id, &asked, time).await?;
        all.applied_head = told.applied_head;
        for ((position, _), promised) in maybe.iter().zip(told.promised) {
            if let Some(place) = all.promised.get_mut(*position) {
                *place = promised;
            }
        }
        Ok(all)
    }

    /// Says that payments are about to be promised. Between [`ledger::claim`] and the commit, in the same
    /// database transaction, whose isolation is "read committed"; whether Redis is configured here or not,
    /// because it may be for others.
    pub async fn announce(
        &self,
        conn: &mut PgConnection,
        chain_id: ChainId,
        claims: &[Announced],
    ) -> Result<(), DbError> {
        let seen = ledger::filter(conn, chain_id).await?;
        // Whoever begins a generation from here on waits for the end of this database transaction, which
        // has written its claims.
        let Some(filter) = seen.filter.filter(|filter| filter.state != FilterState::Stale) else {
            return Ok(());
        };
        let lives: Vec<(Account, u64)> = claims
            .iter()
            .map(|claim| {
                let account = Account { asset: claim.asset, payer: claim.payer };
                let expiry = u64::try_from(claim.valid_before).unwrap_or(u64::MAX);
                (account, lifetime(UnixTime::from_seconds(expiry), seen.now))
            })
            .collect();
        let marked_at = match &self.marks {
            Some(marks) => marks.mark(chain_id, &lives).await.ok(),
            None => None,
        };
        if marked_at.is_some_and(|server| server.as_str() == filter.server) {
            return Ok(());
        }
        ledger::distrust_filter(conn, chain_id).await
    }

    /// Looks after Redis and the marks of those chains until `stop`.
    pub async fn run(&self, chain_ids: &[ChainId], stop: &CancellationToken) {
        let Some(marks) = &self.marks else {
            stop.cancelled().await;
            return;
        };
        let tend = async {
            loop {
                // The loss of Redis is told where it is noticed.
                if marks.connect().await.is_ok() {
                    let chains = chain_ids.iter().map(|chain_id| self.tend(marks, *chain_id));
                    join_all(chains).await;
                }
                tokio::select! {
                    () = tokio::time::sleep(TEND_INTERVAL) => (),
                    () = self.is_lost() => (),
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => (),
            () = tend => (),
        }
    }

    /// Once marks were found lost, and a moment later: everybody who asks finds them lost.
    async fn is_lost(&self) {
        self.lost.notified().await;
        tokio::time::sleep(LOSS_INTERVAL).await;
    }

    /// Which of `keys` are of marked payers, by their positions, and the applied head. `None` if marks
    /// cannot be believed.
    async fn marked(
        &self,
        conn: &mut PgConnection,
        chain_id: ChainId,
        block: (u64, UnixTime),
        keys: &[PromiseKey],
    ) -> Result<Option<(Option<u64>, Vec<(usize, PromiseKey)>)>, DbError> {
        let Some(marks) = self.marks.as_ref().filter(|marks| marks.is_connected()) else {
            return Ok(None);
        };
        // Before Redis is asked: a generation that comes to be trusted afterwards had not all its marks.
        let seen = ledger::filter(conn, chain_id).await?;
        let Some(filter) = seen.filter.filter(|filter| is_of_use(filter, block, seen.now)) else {
            return Ok(None);
        };
        let mut accounts = Vec::new();
        let mut positions = HashMap::new();
        for account in keys.iter().map(account) {
            positions.entry(account).or_insert_with(|| {
                accounts.push(account);
                accounts.len().saturating_sub(1)
            });
        }
        if accounts.is_empty() {
            return Ok(None);
        }
        let Ok(look) = marks.look(chain_id, filter.generation, &accounts).await else {
            return Ok(None);
        };
        if !is_at(&filter, &look.server, look.has_generation) {
            self.lost.notify_one();
            return Ok(None);
        }
        let is_marked = |key: &PromiseKey| {
            let position = positions.get(&account(key));
            position.and_then(|position| look.marked.get(*position)).copied().unwrap_or(true)
        };
        let maybe = keys.iter().copied().enumerate().filter(|(_, key)| is_marked(key)).collect();
        Ok(Some((seen.applied_head, maybe)))
    }

    /// Sees to it that the marks of a chain can be believed.
    async fn tend(&self, marks: &Marks, chain_id: ChainId) {
        match self.restore(marks, chain_id).await {
            Ok(()) => (),
            // Told where it was noticed.
            Err(BuildError::Redis(_)) => (),
            Err(error) => {
                let error = causes(&error);
                tracing::warn!(chain.id = %chain_id, error, "could not mark who promised something");
            }
        }
    }

    async fn restore(&self, marks: &Marks, chain_id: ChainId) -> Result<(), BuildError> {
        let mut conn = self.pool.acquire().await.during("look after marks")?;
        let former = ledger::filter(&mut conn, chain_id).await?.filter;
        let former_generation = former.as_ref().map(|filter| filter.generation);
        let (server, has_former) = marks.holds(former_generation.unwrap_or_default()).await?;
        let is_well = former.as_ref().is_some_and(|filter| {
            filter.state == FilterState::Trusted && is_at(filter, &server, has_former)
        });
        if is_well {
            return Ok(());
        }
        let next = Uuid::now_v7();
        let began =
            ledger::begin_filter(&mut conn, chain_id, next, server.as_str(), former_generation);
        if !began.await? {
            return Ok(());
        }
        let built = self.build(&mut conn, marks, chain_id, next, &server, former_generation).await;
        match built {
            Ok(true) => tracing::info!(chain.id = %chain_id, "Redis knows who promised something"),
            // So that another may begin soon.
            Ok(false) | Err(_) => ledger::distrust_filter(&mut conn, chain_id).await?,
        }
        built.map(drop)
    }

    /// Everything between the beginning of a generation in the books and its being trusted. `false` if
    /// something was lost meanwhile.
    async fn build(
        &self,
        conn: &mut PgConnection,
        marks: &Marks,
        chain_id: ChainId,
        generation: Uuid,
        server: &Server,
        former: Option<Uuid>,
    ) -> Result<bool, BuildError> {
        let expect = |answers: Server| {
            if answers == *server { Ok(()) } else { Err(BuildError::AnotherServer) }
        };
        expect(marks.begin(generation, former).await?)?;
        settle(conn).await?;
        let now = ledger::filter(conn, chain_id).await?.now;
        let expiry_min =
            UnixTime::from_seconds(now.seconds().saturating_sub(LIFETIME_MARGIN.as_secs()));
        let mut db = conn.begin().await.during("read who promised something")?;
        ledger::take_time(&mut db).await?;
        {
            let live = std::pin::pin!(ledger::live_accounts(&mut db, chain_id, expiry_min));
            let mut some = live.try_chunks(N_MARKED_AT_ONCE);
            while let Some(some) = some.try_next().await.map_err(|error| error.1)? {
                let lives: Vec<_> = some.iter().map(|live| marked_life(live, now)).collect();
                expect(marks.mark(chain_id, &lives).await?)?;
            }
        }
        db.commit().await.during("read who promised something")?;
        let (answers, has_generation) = marks.holds(generation).await?;
        expect(answers)?;
        Ok(has_generation && ledger::trust_filter(conn, chain_id, generation).await?)
    }
}

/// Waits until every database transaction that has written something has ended.
async fn settle(conn: &mut PgConnection) -> Result<(), BuildError> {
    let deadline = Instant::now().checked_add(SETTLE_TIMEOUT);
    let moment = ledger::moment(conn).await?;
    while !ledger::has_settled(conn, &moment).await? {
        if deadline.is_none_or(|deadline| Instant::now() > deadline) {
            return Err(BuildError::Unsettled);
        }
        tokio::time::sleep(SETTLE_INTERVAL).await;
    }
    Ok(())
}

/// Whether marks can be believed by whoever verifies by that block, as far as the books know.
fn is_of_use(filter: &Filter, (number, time): (u64, UnixTime), now: UnixTime) -> bool {
    filter.state == FilterState::Trusted
        && filter.from_block <= number
        && now <= time.saturating_add(BLOCK_AGE_MAX)
}

/// Whether the generation that the books know began at that server, and nothing was lost since.
fn is_at(filter: &Filter, server: &Server, has_generation: bool) -> bool {
    has_generation && filter.server == server.as_str()
}

const fn account(key: &PromiseKey) -> Account {
    Account { asset: key.asset, payer: key.payer }
}

fn marked_life(live: &LiveAccount, now: UnixTime) -> (Account, u64) {
    let account = Account { asset: live.asset, payer: live.payer };
    (account, lifetime(live.valid_before, now))
}

/// How many seconds a mark must live.
const fn lifetime(valid_before: UnixTime, now: UnixTime) -> u64 {
    let left = valid_before.seconds().saturating_sub(now.seconds());
    left.saturating_add(LIFETIME_MARGIN.as_secs())
}

fn count(answered_by: &'static str) {
    metrics::counter!("quittance_promises_total", "by" => answered_by).increment(1);
}
