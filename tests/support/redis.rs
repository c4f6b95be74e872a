//! A Redis server of our own, and a door to it that can be shut.

use std::{net::TcpListener as Port, path::PathBuf, process::Stdio, time::Duration};

use redis::{Client, FromRedisValue, aio::MultiplexedConnection};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
};

/// The setting that says where Redis is.
pub const REDIS_URL: &str = "QUITTANCE__REDIS__URL";
/// How often another port is tried, when somebody else took the one that was free.
const N_STARTS_MAX: usize = 5;

/// A running Redis without persistence, on a free port. Dropping it kills it.
pub struct Redis {
    pub url: String,
    port: u16,
    dir: PathBuf,
    process: Child,
}

impl Redis {
    pub async fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("quittance-redis-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        for _ in 0..N_STARTS_MAX {
            let free = Port::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let mut this = Self {
                url: format!("redis://127.0.0.1:{free}"),
                port: free,
                process: spawn(free, &dir),
                dir: dir.clone(),
            };
            if this.until_it_answers().await {
                return this;
            }
        }
        panic!("redis-server does not start");
    }

    /// One command, past every door.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().await.unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Starts it again at the same port, with what it saved if it was told to.
    pub async fn start_again(&mut self) {
        self.process = spawn(self.port, &self.dir);
        assert!(self.until_it_answers().await, "redis-server does not start again");
    }

    /// SIGSTOP: it takes connections and answers nothing.
    pub async fn pause(&self) {
        self.signal("STOP").await;
    }

    /// SIGCONT.
    pub async fn resume(&self) {
        self.signal("CONT").await;
    }

    async fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id().expect("Redis runs"));
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    }

    async fn connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        Client::open(&*self.url).unwrap().get_multiplexed_async_connection().await
    }

    async fn until_it_answers(&mut self) -> bool {
        for _ in 0..500 {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if self.connection().await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(port: u16, dir: &PathBuf) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is installed; `make setup` does it")
}

/// A door to a server: shut, its connections are closed, and every new one at once.
pub struct Door {
    /// The URL of Redis through it.
    pub url: String,
    is_shut: watch::Sender<bool>,
}

impl Door {
    pub async fn before(redis: &Redis) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (is_shut, server) = (watch::Sender::new(false), redis.port);
        let state = is_shut.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut is_shut = state.subscribe();
                tokio::spawn(async move {
                    let served = async {
                        let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                        tokio::io::copy_bidirectional(&mut client, &mut server).await
                    };
                    tokio::select! {
                        _ = is_shut.wait_for(|is_shut| *is_shut) => (),
                        _ = served => (),
                    }
                });
            }
        });
        Self { url, is_shut }
    }

    pub fn shut(&self) {
        self.is_shut.send_replace(true);
    }

    pub fn open(&self) {
        self.is_shut.send_replace(false);
    }
}
