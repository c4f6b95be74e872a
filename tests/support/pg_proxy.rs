//! A proxy between a service and Postgres that loses the answer to a commit.
//!
//! sqlx commits with the simple query `COMMIT`, and sends everything else as parsed statements.
//! A statement outside of a database transaction commits by itself and is not noticed here.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::watch,
};

/// What stands in front of a start-up message that is a question about encryption (protocol 3.0).
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];

/// A running proxy.
pub struct PgProxy {
    /// The URL of the database through this proxy.
    pub url: String,
    state: Arc<State>,
}

struct State {
    server: String,
    is_refusing: watch::Sender<bool>,
    cut: Mutex<Option<Cut>>,
    n_cuts: AtomicU64,
}

/// Which commit is cut, and where.
struct Cut {
    /// Of a database transaction with a statement that holds these words.
    words: String,
    /// Such commits until that one, itself included.
    n_until: u64,
    reaches_server: bool,
}

/// What is known of one client.
#[derive(Default)]
struct Client {
    is_started: bool,
    /// Statements by the names that the client gave them.
    statements: HashMap<Vec<u8>, String>,
    /// What the open database transaction has done.
    done: Vec<String>,
}

impl PgProxy {
    /// A proxy in front of the database at `url`.
    pub async fn before(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut through = reqwest::Url::parse(url).unwrap();
        let server = format!("127.0.0.1:{}", through.port().unwrap());
        through.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let state = Arc::new(State {
            server,
            is_refusing: watch::Sender::new(false),
            cut: Mutex::new(None),
            n_cuts: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { shared.serve(client).await });
            }
        });
        Self { url: through.to_string(), state }
    }

    /// Lets the `nth` commit from now, 1 being the next one, reach the server and be answered
    /// there, and closes the connection before the client hears of it. Only commits of database
    /// transactions with a statement that holds `words` are counted; `""` counts all.
    pub fn cut_after_commit(&self, words: &str, nth: u64) {
        self.cut(Cut { words: words.to_owned(), n_until: nth, reaches_server: true });
    }

    /// As [`PgProxy::cut_after_commit`], but the commit does not reach the server either.
    pub fn cut_before_commit(&self, words: &str, nth: u64) {
        self.cut(Cut { words: words.to_owned(), n_until: nth, reaches_server: false });
    }

    /// How many commits have been cut.
    pub fn n_cuts(&self) -> u64 {
        self.state.n_cuts.load(Ordering::SeqCst)
    }

    /// Closes all connections, and every new one at once.
    pub fn refuse(&self) {
        self.state.is_refusing.send_replace(true);
    }

    /// Takes connections again.
    pub fn accept(&self) {
        self.state.is_refusing.send_replace(false);
    }

    fn cut(&self, cut: Cut) {
        *self.state.cut.lock().unwrap() = Some(cut);
    }
}

impl State {
    /// Serves one client until one side or a fault ends it; the connections close with the return.
    async fn serve(&self, client: TcpStream) {
        let mut is_refusing = self.is_refusing.subscribe();
        let Ok(server) = TcpStream::connect(&self.server).await else { return };
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        let is_cut = AtomicBool::new(false);
        let down = async {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let n = from_server.read(&mut buffer).await?;
                // After a commit that is cut, this is its answer: the server has done it.
                if n == 0 || is_cut.load(Ordering::SeqCst) {
                    return io::Result::Ok(());
                }
                to_client.write_all(&buffer[..n]).await?;
            }
        };
        tokio::select! {
            _ = down => (),
            _ = self.upward(from_client, to_server, &is_cut) => (),
            _ = is_refusing.wait_for(|is_refusing| *is_refusing) => (),
        }
    }

    async fn upward(
        &self,
        mut from_client: OwnedReadHalf,
        mut to_server: tokio::net::tcp::OwnedWriteHalf,
        is_cut: &AtomicBool,
    ) -> io::Result<()> {
        let mut client = Client::default();
        loop {
            let message = read_message(&mut from_client, client.is_started).await?;
            let cut = client.commits(&message).and_then(|done| self.cut_of(&done));
            if let Some(reaches_server) = cut {
                if reaches_server {
                    is_cut.store(true, Ordering::SeqCst);
                    to_server.write_all(&message).await?;
                    // The answer ends the connection.
                    std::future::pending::<()>().await;
                }
                return Ok(());
            }
            to_server.write_all(&message).await?;
        }
    }

    /// Whether this commit is cut, and if so, whether it reaches the server.
    fn cut_of(&self, done: &[String]) -> Option<bool> {
        let mut pending = self.cut.lock().unwrap();
        let cut = pending.as_mut()?;
        if !cut.words.is_empty() && !done.iter().any(|sql| sql.contains(&cut.words)) {
            return None;
        }
        cut.n_until = cut.n_until.saturating_sub(1);
        if cut.n_until > 0 {
            return None;
        }
        self.n_cuts.fetch_add(1, Ordering::SeqCst);
        pending.take().map(|cut| cut.reaches_server)
    }
}

impl Client {
    /// Follows what the client does; for a commit, what its database transaction has done.
    fn commits(&mut self, message: &[u8]) -> Option<Vec<String>> {
        if !self.is_started {
            let code = u32::from_be_bytes(message[4..8].try_into().unwrap());
            self.is_started = !ENCRYPTION_REQUESTS.contains(&code);
            return None;
        }
        let mut fields = message[5..].split(|byte| *byte == 0);
        let mut field = || fields.next().unwrap_or_default().to_vec();
        match message[0] {
            // Parse: the statement's name and its words.
            b'P' => {
                let name = field();
                self.statements.insert(name, String::from_utf8_lossy(&field()).into_owned());
            }
            // Bind: the portal's name and the statement's.
            b'B' => {
                let (_portal, name) = (field(), field());
                self.done.extend(self.statements.get(&name).cloned());
            }
            // A simple query.
            b'Q' => {
                let sql = String::from_utf8_lossy(&field()).trim().to_ascii_lowercase();
                if sql.starts_with("commit") {
                    return Some(std::mem::take(&mut self.done));
                }
                if sql.starts_with("begin") || sql.starts_with("rollback") {
                    self.done.clear();
                }
            }
            _ => (),
        }
        None
    }
}

/// One whole message; those before the start-up is done have no kind in front of their length.
async fn read_message(from: &mut OwnedReadHalf, is_started: bool) -> io::Result<Vec<u8>> {
    let n_kind = usize::from(is_started);
    let mut message = vec![0; n_kind + 4];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[n_kind..].try_into().unwrap());
    let n_bytes = usize::try_from(length).unwrap();
    message.resize(n_kind + n_bytes.max(4), 0);
    from.read_exact(&mut message[n_kind + 4..]).await?;
    Ok(message)
}
