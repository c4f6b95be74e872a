//! The connection to Postgres: pool, migrations, and how SQL trouble is told.
//!
//! Holds no query. Each layer above has its own, and every one of them takes a connection, so that
//! the caller decides what commits together.

mod error;
mod value;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{Executor as _, PgPool, migrate::Migrator, postgres::PgPoolOptions};

pub use error::{DbError, During};
pub use value::{address, amount, authorization_nonce, chain_id, hash, height, number, u256};

/// The migrations in `migrations/`, inside the binary.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// How long a request waits for a free connection before it fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// What every connection of the service asks of the server: that no statement and no lock is waited for
/// longer than a caller waits, and that a process which stops inside a transaction does not hold its
/// locks against the others.
const SESSION_LIMITS: &str = "set statement_timeout = '10s'; set lock_timeout = '5s'; \
                              set idle_in_transaction_session_timeout = '10s'";

/// Opens a pool for the service and proves that the server answers.
pub async fn connect(url: &SecretString, n_connections_max: u32) -> Result<PgPool, DbError> {
    let limited = PgPoolOptions::new().after_connect(|conn, _| {
        Box::pin(async move { conn.execute(SESSION_LIMITS).await.map(drop) })
    });
    open(limited, url, n_connections_max).await
}

/// Opens a connection whose statements may take their time, for migrations.
pub async fn connect_patiently(url: &SecretString) -> Result<PgPool, DbError> {
    open(PgPoolOptions::new(), url, 1).await
}

async fn open(
    options: PgPoolOptions,
    url: &SecretString,
    n_connections_max: u32,
) -> Result<PgPool, DbError> {
    options
        .max_connections(n_connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect(url.expose_secret())
        .await
        .during("connect to the database")
}

/// Applies the migrations that are missing.
pub async fn migrate(pool: &PgPool) -> Result<(), DbError> {
    MIGRATIONS.run(pool).await.map_err(sqlx::Error::from).during("migrate the database")
}

/// Asks the server whether it is there.
pub async fn ping(pool: &PgPool) -> Result<(), DbError> {
    sqlx::query("select 1").execute(pool).await.during("ask the database whether it is there")?;
    Ok(())
}

/// Whether the database has every migration of this binary.
pub async fn is_migrated(pool: &PgPool) -> Result<bool, DbError> {
    let exists: Option<String> = sqlx::query_scalar("select to_regclass('_sqlx_migrations')::text")
        .fetch_one(pool)
        .await
        .during("look for migrations")?;
    if exists.is_none() {
        return Ok(false);
    }
    let applied: Vec<i64> =
        sqlx::query_scalar("select version from _sqlx_migrations where success")
            .fetch_all(pool)
            .await
            .during("read applied migrations")?;
    Ok(MIGRATIONS.iter().all(|migration| applied.contains(&migration.version)))
}
