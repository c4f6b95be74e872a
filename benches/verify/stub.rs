//! An endpoint that answers the lens by itself, after a time of our choice, and leaves the rest to a
//! real node: so that verification can be measured without what a node costs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use alloy::{
    hex,
    primitives::{B256, Bytes, U64, U256},
    sol,
    sol_types::SolCall as _,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
};

use crate::{http, process::Thread};

/// How often the newest block is looked at.
const HEAD_INTERVAL: Duration = Duration::from_millis(100);

sol! {
    struct Limits { uint256 plainGas; uint256 contractGas; uint256 deployGas; }

    struct Payment {
        address asset; address payer; address payee; uint256 amount; uint256 validAfter;
        uint256 validBefore; bytes32 nonce; bytes32 digest; bytes signature; bool isSignedByKey;
        address factory; bytes factoryData;
    }

    struct Facts {
        bool isSeen; bool assetHasCode; uint256 payerCodeSize; uint8 authorizationState;
        bool hasBalance; uint256 balance; bool wasTried; bool isDeployed; bool succeeds;
        uint256 gasUsed; bool signatureAccepted; bytes revertData;
    }

    struct Sight {
        uint256 chainId; uint256 blockNumber; uint256 blockTimestamp; bytes32 parentHash;
        Facts[] facts;
    }

    /// `contracts/src/VerificationLens.sol`.
    function look(Payment[] payments, Limits limits) external returns (Sight sight);
}

/// How the endpoint is.
#[derive(Clone, Copy)]
pub struct Manner {
    /// How long it takes for an answer.
    pub delay: Duration,
    /// How many calls of the lens it answers at a time.
    pub n_lens_calls_max: usize,
}

/// A running stub. It ends when it is dropped.
pub struct Stub {
    pub url: String,
    pub thread: Thread,
    counts: Arc<Counts>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Counts {
    n_calls: AtomicU64,
    n_payments: AtomicU64,
}

impl Stub {
    /// A stub before the node at `upstream`, in a thread of its own.
    pub fn start(upstream: &str, chain_id: u64, manner: Manner) -> Self {
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let (started, address) = mpsc::channel();
        let endpoint = Endpoint {
            upstream: upstream.to_owned(),
            chain_id,
            manner,
            places: Semaphore::new(manner.n_lens_calls_max),
            head: Mutex::default(),
            counts: Arc::clone(&counts),
        };
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let endpoint = Arc::new(endpoint);
                let http = reqwest::Client::new();
                endpoint.look_at_head(&http).await;
                started.send((address, Thread::current())).unwrap();
                tokio::select! {
                    _ = stopped => {}
                    () = Arc::clone(&endpoint).follow(http.clone()) => {}
                    () = endpoint.serve(listener, http) => {}
                }
            });
        });
        let (address, thread) = address.recv().unwrap();
        Self { url: format!("http://{address}"), thread, counts, _stop: stop }
    }

    /// How many calls of the lens it answered so far, and payments in them.
    pub fn answered(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.counts.n_calls), of(&self.counts.n_payments))
    }
}

struct Endpoint {
    upstream: String,
    chain_id: u64,
    manner: Manner,
    places: Semaphore,
    head: Mutex<Head>,
    counts: Arc<Counts>,
}

#[derive(Clone, Copy, Default)]
struct Head {
    number: u64,
    timestamp: u64,
    parent_hash: B256,
}

/// An `eth_call` with state overrides. Anything else does not fit.
#[derive(Deserialize)]
struct LensCall<'a> {
    id: Value,
    method: &'a str,
    #[serde(borrow)]
    params: (Request<'a>, IgnoredAny, IgnoredAny),
}

#[derive(Deserialize)]
struct Request<'a> {
    input: Option<&'a str>,
    data: Option<&'a str>,
}

impl Endpoint {
    async fn serve(self: Arc<Self>, listener: TcpListener, http: reqwest::Client) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(Arc::clone(&self).converse(stream, http.clone()));
        }
    }

    async fn converse(self: Arc<Self>, mut stream: TcpStream, http: reqwest::Client) {
        let mut received = Vec::with_capacity(16 * 1024);
        loop {
            let Some(message) = http::message(&received) else {
                match stream.read_buf(&mut received).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                }
            };
            let answer = self.answer(&received[message.body.clone()], &http).await;
            received.drain(..message.body.end);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            if stream.write_all(&[head.as_bytes(), &answer].concat()).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, question: &[u8], http: &reqwest::Client) -> Vec<u8> {
        let lens = serde_json::from_slice::<LensCall<'_>>(question)
            .ok()
            .filter(|call| call.method == "eth_call")
            .and_then(|call| {
                let request = call.params.0;
                Some((call.id, n_payments(request.input.or(request.data)?)?))
            });
        let Some((id, n)) = lens else {
            self.delay().await;
            return self.forward(question.to_vec(), http).await;
        };
        let place = self.places.acquire().await.unwrap();
        self.delay().await;
        drop(place);
        self.counts.n_calls.fetch_add(1, Ordering::Relaxed);
        self.counts.n_payments.fetch_add(u64::try_from(n).unwrap(), Ordering::Relaxed);
        let sight = hex::encode_prefixed(lookCall::abi_encode_returns(&self.sight(n)));
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{sight}"}}"#).into_bytes()
    }

    async fn delay(&self) {
        if !self.manner.delay.is_zero() {
            tokio::time::sleep(self.manner.delay).await;
        }
    }

    async fn forward(&self, question: Vec<u8>, http: &reqwest::Client) -> Vec<u8> {
        let asked = http.post(&self.upstream).header("content-type", "application/json");
        match asked.body(question).send().await {
            Ok(answer) => answer.bytes().await.unwrap_or_default().to_vec(),
            // Not JSON, which is trouble for whoever asked.
            Err(_) => Vec::new(),
        }
    }

    /// Every payment can be made.
    fn sight(&self, n: usize) -> Sight {
        let head = *self.head.lock().unwrap();
        let facts = Facts {
            isSeen: true,
            assetHasCode: true,
            payerCodeSize: U256::ZERO,
            authorizationState: 1,
            hasBalance: true,
            balance: U256::from(u64::MAX),
            wasTried: true,
            isDeployed: false,
            succeeds: true,
            gasUsed: U256::from(80_000),
            signatureAccepted: true,
            revertData: Bytes::new(),
        };
        Sight {
            chainId: U256::from(self.chain_id),
            blockNumber: U256::from(head.number),
            blockTimestamp: U256::from(head.timestamp),
            parentHash: head.parent_hash,
            facts: vec![facts; n],
        }
    }

    async fn follow(self: Arc<Self>, http: reqwest::Client) {
        loop {
            tokio::time::sleep(HEAD_INTERVAL).await;
            self.look_at_head(&http).await;
        }
    }

    async fn look_at_head(&self, http: &reqwest::Client) {
        let params = json!(["latest", false]);
        let question = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": params });
        let answer = self.forward(question.to_string().into_bytes(), http).await;
        let Ok(answer) = serde_json::from_slice::<Value>(&answer) else { return };
        let text = |key: &str| answer["result"][key].as_str();
        let number = |key: &str| text(key).and_then(|text| text.parse::<U64>().ok());
        let parent_hash = text("parentHash").and_then(|text| text.parse().ok());
        if let (Some(number), Some(timestamp), Some(parent_hash)) =
            (number("number"), number("timestamp"), parent_hash)
        {
            let (number, timestamp) = (number.to(), timestamp.to());
            *self.head.lock().unwrap() = Head { number, timestamp, parent_hash };
        }
    }
}

/// How many payments the calldata of the lens holds; `None` if it is another function's. Only the
/// length of the list is looked at.
fn n_payments(input: &str) -> Option<usize> {
    let digits = input.strip_prefix("0x")?;
    let arguments = digits.strip_prefix(&hex::encode(lookCall::SELECTOR))?;
    let word = |at: usize| usize::from_str_radix(arguments.get(2 * at..2 * at + 64)?, 16).ok();
    word(word(0)?)
}
