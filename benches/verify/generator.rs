//! Callers that cost little: keep-alive connections over which finished bytes are sent, all in one
//! thread.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    task::LocalSet,
};

use crate::{http, payments::Requests, process::Thread};

/// How often requests that are due are handed out.
const PACE: Duration = Duration::from_millis(1);
/// How many connections are opened before the next are, so that the queue of the listener holds.
const N_CONNECTIONS_AT_ONCE: usize = 200;

/// When to count and when to end; set by whoever measures.
#[derive(Default)]
pub struct Phase(AtomicU8);

impl Phase {
    const MEASURED: u8 = 1;
    const OVER: u8 = 2;

    /// From now on answers count.
    pub fn measure(&self) {
        self.0.store(Self::MEASURED, Ordering::Relaxed);
    }

    /// No further requests.
    pub fn end(&self) {
        self.0.store(Self::OVER, Ordering::Relaxed);
    }

    fn is_measured(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::MEASURED
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::OVER
    }
}

/// Who calls.
#[derive(Clone, Copy)]
pub enum Callers {
    /// So many, each of whom asks again when it is answered.
    Closed { n: usize },
    /// So many requests a second whatever is answered, over at most so many connections.
    Open { a_second: f64, n_connections: usize },
}

/// What was answered while it counted.
#[derive(Default)]
pub struct Tally {
    /// How long each took, by what was said: `valid`, a reason, or a status and a reason.
    pub waits: BTreeMap<String, Vec<Duration>>,
    /// How many connections were closed on us.
    pub n_lost: u64,
    /// How many requests found no free connection when they were due.
    pub n_late: u64,
    /// Processor time of the generator, warm-up included.
    pub cpu: Duration,
}

/// Sends requests until the phase is over. Runs in a thread of its own, which ends with it.
pub fn run(
    address: SocketAddr,
    requests: Arc<Requests>,
    callers: Callers,
    phase: Arc<Phase>,
) -> std::thread::JoinHandle<Tally> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let generator = Rc::new(Generator {
            address,
            requests,
            phase,
            tally: RefCell::default(),
            due: RefCell::default(),
            is_due: Notify::new(),
        });
        let local = LocalSet::new();
        match callers {
            Callers::Closed { n } => local.block_on(&runtime, Rc::clone(&generator).closed(n)),
            Callers::Open { a_second, n_connections } => {
                local.block_on(&runtime, Rc::clone(&generator).open(a_second, n_connections));
            }
        }
        let mut tally = generator.tally.take();
        tally.cpu = Thread::current().cpu();
        tally
    })
}

struct Generator {
    address: SocketAddr,
    requests: Arc<Requests>,
    phase: Arc<Phase>,
    tally: RefCell<Tally>,
    /// When requests were to be sent that nobody has sent yet.
    due: RefCell<VecDeque<Instant>>,
    is_due: Notify,
}

impl Generator {
    async fn closed(self: Rc<Self>, n: usize) {
        let mut callers = Vec::new();
        for connection in self.connect_all(n).await {
            let generator = Rc::clone(&self);
            callers.push(tokio::task::spawn_local(async move {
                let mut connection = connection;
                while !generator.phase.is_over() {
                    generator.ask(&mut connection, Instant::now()).await;
                }
            }));
        }
        for caller in callers {
            caller.await.unwrap();
        }
    }

    async fn open(self: Rc<Self>, a_second: f64, n_connections: usize) {
        let mut senders = Vec::new();
        for connection in self.connect_all(n_connections).await {
            let generator = Rc::clone(&self);
            senders.push(tokio::task::spawn_local(async move {
                let mut connection = connection;
                while let Some(due) = generator.next_due().await {
                    generator.ask(&mut connection, due).await;
                }
            }));
        }
        let (started, mut n_sent) = (Instant::now(), 0.0);
        let mut pace = tokio::time::interval(PACE);
        while !self.phase.is_over() {
            pace.tick().await;
            let n_due = (started.elapsed().as_secs_f64() * a_second).floor();
            while n_sent < n_due {
                n_sent += 1.0;
                let due = started + Duration::from_secs_f64(n_sent / a_second);
                self.due.borrow_mut().push_back(due);
                self.is_due.notify_one();
            }
        }
        self.due.borrow_mut().clear();
        self.is_due.notify_waiters();
        for sender in senders {
            sender.await.unwrap();
        }
    }

    /// When the next request was to be sent; `None` when there are no more.
    async fn next_due(&self) -> Option<Instant> {
        loop {
            let woken = self.is_due.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.phase.is_over() {
                return None;
            }
            let due = self.due.borrow_mut().pop_front();
            if let Some(due) = due {
                if due.elapsed() > 2 * PACE && self.phase.is_measured() {
                    self.tally.borrow_mut().n_late += 1;
                }
                return Some(due);
            }
            woken.await;
        }
    }

    async fn connect_all(&self, n: usize) -> Vec<Connection> {
        let mut connections = Vec::with_capacity(n);
        while connections.len() < n {
            for _ in connections.len()..n.min(connections.len() + N_CONNECTIONS_AT_ONCE) {
                connections.push(Connection::open(self.address).await);
            }
            tokio::time::sleep(10 * PACE).await;
        }
        connections
    }

    /// Asks once, and counts the answer from the time when the question was due.
    async fn ask(&self, connection: &mut Connection, due: Instant) {
        let answered = connection.ask(self.requests.next()).await;
        if self.phase.is_measured() {
            self.tally.borrow_mut().count(answered.as_deref().ok(), due.elapsed());
        }
        if answered.is_err() {
            *connection = Connection::open(self.address).await;
        }
    }
}

impl Tally {
    fn count(&mut self, answer: Option<&[u8]>, waited: Duration) {
        let Some(answer) = answer else {
            self.n_lost += 1;
            return;
        };
        let said = said(answer);
        match self.waits.get_mut(said.as_ref()) {
            Some(waits) => waits.push(waited),
            None => drop(self.waits.insert(said.into_owned(), vec![waited])),
        }
    }
}

/// What an answer says: its status, and whether the payment is valid or why not.
fn said(answer: &[u8]) -> std::borrow::Cow<'_, str> {
    let status = http::status(answer);
    if status == 200 && http::find(answer, b"\"isValid\":true").is_some() {
        return "valid".into();
    }
    const KEY: &[u8] = b"\"invalidReason\":\"";
    let reason = http::find(answer, KEY).map(|at| &answer[at + KEY.len()..]);
    let reason = reason.and_then(|rest| rest.split(|byte| *byte == b'"').next());
    format!("{status} {}", String::from_utf8_lossy(reason.unwrap_or(b"without a reason"))).into()
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::with_capacity(1_024) }
    }

    async fn ask(&mut self, request: &[u8]) -> std::io::Result<&[u8]> {
        self.received.clear();
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(message) = http::message(&self.received) {
                return Ok(&self.received[..message.body.end]);
            }
        }
    }
}
