//! Ownership of wallets and followers, in the database's time.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::db::{DbError, During};

/// Takes a lease that nobody holds, or `holder` itself, and returns its epoch.
pub(in crate::engine) async fn acquire_lease(
    conn: &mut PgConnection,
    name: &str,
    holder: Uuid,
    length: Duration,
) -> Result<Option<i64>, DbError> {
    sqlx::query_scalar!(
        "
        insert into lease (lease_name, epoch, holder, held_until)
        values ($1, 1, $2, now() + make_interval(secs => $3))
        on conflict (lease_name) do update
            set epoch = lease.epoch + 1, holder = $2, held_until = now() + make_interval(secs => $3)
            where lease.held_until <= now() or lease.holder = $2
        returning epoch
        ",
        name,
        holder,
        length.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await
    .during("take a lease")
}

/// Prolongs a lease. `false` if it is another's by now.
pub(in crate::engine) async fn renew_lease(
    conn: &mut PgConnection,
    name: &str,
    epoch: i64,
    length: Duration,
) -> Result<bool, DbError> {
    let renewed = sqlx::query!(
        "
        update lease set held_until = now() + make_interval(secs => $3)
        where lease_name = $1 and epoch = $2
        ",
        name,
        epoch,
        length.as_secs_f64(),
    )
    .execute(conn)
    .await
    .during("renew a lease")?;
    Ok(renewed.rows_affected() == 1)
}

/// Gives a lease back, so that another process need not wait for its end.
pub(in crate::engine) async fn release_lease(
    conn: &mut PgConnection,
    name: &str,
    epoch: i64,
) -> Result<(), DbError> {
    sqlx::query!(
        "update lease set held_until = now() where lease_name = $1 and epoch = $2",
        name,
        epoch,
    )
    .execute(conn)
    .await
    .during("release a lease")?;
    Ok(())
}

/// Whether the lease is still of that epoch; nobody can take it until the surrounding transaction
/// ends. The first statement of everything that an owner commits.
pub(in crate::engine) async fn hold_lease(
    conn: &mut PgConnection,
    name: &str,
    epoch: i64,
) -> Result<bool, DbError> {
    let held = sqlx::query_scalar!(
        r#"
        select 1 as "held!" from lease
        where lease_name = $1 and epoch = $2 and held_until > clock_timestamp()
        for share
        "#,
        name,
        epoch,
    )
    .fetch_optional(conn)
    .await
    .during("hold a lease")?;
    Ok(held.is_some())
}

/// Says that this process lives, and returns how many said so within the length of a lease.
pub(in crate::engine) async fn count_replicas(
    conn: &mut PgConnection,
    replica_id: Uuid,
    lease: Duration,
) -> Result<usize, DbError> {
    sqlx::query!(
        "
        insert into replica (replica_id) values ($1)
        on conflict (replica_id) do update set seen_at = now()
        ",
        replica_id,
    )
    .execute(&mut *conn)
    .await
    .during("say that this process lives")?;
    let n = sqlx::query_scalar!(
        r#"
        select count(*) as "n!" from replica
        where seen_at > now() - make_interval(secs => $1)
        "#,
        lease.as_secs_f64(),
    )
    .fetch_one(&mut *conn)
    .await
    .during("count the processes")?;
    Ok(usize::try_from(n).unwrap_or(1).max(1))
}

/// Says that this process is gone, and forgets others that are.
pub(in crate::engine) async fn leave_replicas(
    conn: &mut PgConnection,
    replica_id: Uuid,
) -> Result<(), DbError> {
    sqlx::query!(
        "delete from replica where replica_id = $1 or seen_at < now() - interval '1 day'",
        replica_id,
    )
    .execute(conn)
    .await
    .during("say that this process is gone")?;
    Ok(())
}
