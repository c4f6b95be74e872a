//! The lists as a process remembers them: a second old at most, and read again only when they changed.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::{
    db::{DbError, During},
    domain::MerchantId,
};

use super::{Denial, Owner, Parties, book::Book, store};

/// How long a copy is believed without asking the database.
const COPY_TTL: Duration = Duration::from_secs(1);
/// How many merchants' copies are believed at a time; 100 bytes each.
const N_MERCHANTS_MAX: u64 = 100_000;
/// How many entries are remembered in all; 100 bytes each.
const N_ENTRIES_KEPT_MAX: u64 = 1_000_000;

/// The lists that one merchant's payments are held against.
#[derive(Debug, Clone)]
struct Pair {
    service: Arc<Book>,
    merchant: Arc<Book>,
}

/// The lists in that database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lists {
    pool: PgPool,
    fresh: Cache<MerchantId, Pair>,
    books: Cache<Owner, Arc<Book>>,
    /// One list is read at a time: a long one that changed is read once, however many ask.
    reading: Arc<Mutex<()>>,
}

impl Lists {
    /// The lists in that database.
    pub fn new(pool: PgPool) -> Self {
        let weight = |_: &Owner, book: &Arc<Book>| {
            u32::try_from(book.n_entries()).unwrap_or(u32::MAX).saturating_add(1)
        };
        Self {
            pool,
            fresh: Cache::builder().max_capacity(N_MERCHANTS_MAX).time_to_live(COPY_TTL).build(),
            books: Cache::builder().max_capacity(N_ENTRIES_KEPT_MAX).weigher(weight).build(),
            reading: Arc::default(),
        }
    }

    /// Whom the lists of the service or of the merchant deny, as of a second ago or later.
    pub async fn denies(
        &self,
        merchant_id: MerchantId,
        parties: &Parties,
    ) -> Result<Option<Denial>, Arc<DbError>> {
        let pair = match self.fresh.get(&merchant_id).await {
            Some(pair) => pair,
            None => self.fresh.try_get_with(merchant_id, self.read(merchant_id)).await?,
        };
        let denial = pair.service.denies(Owner::Service, parties);
        Ok(denial.or_else(|| pair.merchant.denies(Owner::Merchant(merchant_id), parties)))
    }

    async fn read(&self, merchant_id: MerchantId) -> Result<Pair, DbError> {
        let versions = {
            let mut conn = self.pool.acquire().await.during("look whether lists changed")?;
            store::versions(&mut conn, merchant_id).await?
        };
        Ok(Pair {
            service: self.book(Owner::Service, versions.service).await?,
            merchant: self.book(Owner::Merchant(merchant_id), versions.merchant).await?,
        })
    }

    /// The book of that version or of a later one.
    async fn book(&self, owner: Owner, version: u64) -> Result<Arc<Book>, DbError> {
        if let Some(book) = self.known(owner, version).await {
            return Ok(book);
        }
        let _turn = self.reading.lock().await;
        if let Some(book) = self.known(owner, version).await {
            return Ok(book);
        }
        let mut conn = self.pool.acquire().await.during("read a list")?;
        let entries = store::whole(&mut conn, owner).await?;
        let book = Arc::new(Book::of(version, entries));
        self.books.insert(owner, Arc::clone(&book)).await;
        Ok(book)
    }

    async fn known(&self, owner: Owner, version: u64) -> Option<Arc<Book>> {
        match version {
            // Nothing was ever written there.
            0 => Some(Arc::default()),
            _ => self.books.get(&owner).await.filter(|book| book.version() >= version),
        }
    }
}
