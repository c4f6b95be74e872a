//! A JSON-RPC proxy that misbehaves on request, and remembers every transaction it was handed.

mod fault;
mod refusal;
mod sent;
mod stale;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use alloy::primitives::{Address, B256};
use serde_json::{Value, json};
use sqlx::PgPool;

use fault::Faults;
use stale::{Behind, Look, quantity};

pub use fault::{Fault, Trouble};
pub use refusal::{Dialect, Refusal};
pub use sent::{Envelope, Sent};

/// Longer transactions are refused by the pools of geth and reth.
const SIZE_MAX: usize = 128 * 1_024;
/// How long the books may take to say whether they hold a transaction: books that are away must
/// not hold up what is sent.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

/// A running proxy.
pub struct Proxy {
    pub url: String,
    target: Target,
}

#[derive(Clone)]
struct Target {
    http: reqwest::Client,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    url: Mutex<String>,
    faults: Mutex<Faults>,
    sent: Mutex<Vec<Sent>>,
    n_calls: Mutex<HashMap<String, u64>>,
    dialect: Mutex<Dialect>,
    is_strict_about_replacements: AtomicBool,
    is_strict_about_size: AtomicBool,
    is_strict_about_order: AtomicBool,
    /// How long a request may be; 0 stands for any length.
    n_body_bytes_max: AtomicUsize,
    /// Words that are listened for, in lower case, and how many requests held them.
    heard: Mutex<Option<(String, u64)>>,
    books: Mutex<Option<(PgPool, tokio::runtime::Handle)>>,
}

/// One call of a request, and what becomes of it.
struct Call {
    call: Value,
    fault: Option<Fault>,
    behind: Option<Behind>,
    /// Where it is in [`State::sent`], if it sends a transaction.
    n_sent: Option<usize>,
    answer: Option<Value>,
}

impl Proxy {
    /// A proxy in front of `url` that behaves until told otherwise.
    pub fn before(url: &str) -> Self {
        let state = State { url: Mutex::new(url.to_owned()), ..State::default() };
        let target = Target { http: reqwest::Client::new(), state: Arc::new(state) };
        let shared = target.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(shared.clone()))
                .app_data(web::PayloadConfig::new(1 << 22))
                .default_service(web::to(answer))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        tokio::spawn(server.run());
        Self { url, target }
    }

    /// Makes `method` misbehave from now on.
    pub fn set(&self, method: &str, fault: Fault) {
        self.state().faults.lock().unwrap().always(method, fault);
    }

    /// Makes the `nth` call of `method` from now misbehave, 1 being the next one, and no other.
    pub fn set_nth(&self, method: &str, nth: u64, fault: Fault) {
        self.state().faults.lock().unwrap().nth(method, nth, fault);
    }

    /// Makes every method misbehave from now on.
    pub fn set_all(&self, fault: Fault) {
        self.set(fault::EVERY_METHOD, fault);
    }

    /// Forwards to another node from now on.
    pub fn retarget(&self, url: &str) {
        url.clone_into(&mut self.state().url.lock().unwrap());
    }

    /// Makes everything behave again. Dialect and rules stay.
    pub fn heal(&self) {
        self.state().faults.lock().unwrap().clear();
    }

    /// Says errors about sent transactions in another node's words.
    pub fn speak(&self, dialect: Dialect) {
        *self.state().dialect.lock().unwrap() = dialect;
    }

    /// Refuses replacements that offer less than ten per cent more on both fields, as geth and
    /// reth do; anvil takes less.
    pub fn enforce_replacement(&self) {
        self.state().is_strict_about_replacements.store(true, Ordering::Relaxed);
    }

    /// Refuses transactions of more than 128 KiB, as geth and reth do; anvil takes them.
    pub fn enforce_size(&self) {
        self.state().is_strict_about_size.store(true, Ordering::Relaxed);
    }

    /// Refuses transactions whose account nonce leaves a gap, as some nodes do; anvil, geth and reth
    /// keep them.
    pub fn enforce_order(&self) {
        self.state().is_strict_about_order.store(true, Ordering::Relaxed);
    }

    /// Answers 413 to longer requests, as gateways do; 0 takes any.
    pub fn limit_bodies(&self, n_bytes_max: usize) {
        self.state().n_body_bytes_max.store(n_bytes_max, Ordering::Relaxed);
    }

    /// Counts the requests with these words from now on, whatever their case.
    pub fn listen_for(&self, words: &str) {
        *self.state().heard.lock().unwrap() = Some((words.to_lowercase(), 0));
    }

    /// How many there were.
    pub fn n_heard(&self) -> u64 {
        self.state().heard.lock().unwrap().as_ref().map_or(0, |(_, n_heard)| *n_heard)
    }

    /// Looks into the books whenever a transaction arrives, before anything is done with it.
    pub fn watch(&self, books: &PgPool) {
        let runtime = tokio::runtime::Handle::current();
        *self.state().books.lock().unwrap() = Some((books.clone(), runtime));
    }

    /// Every raw transaction that the service tried to send, in order.
    pub fn sent(&self) -> Vec<String> {
        self.log().into_iter().map(|sent| sent.raw).collect()
    }

    /// All that is known of what the service tried to send, in order.
    pub fn log(&self) -> Vec<Sent> {
        self.state().sent.lock().unwrap().clone()
    }

    /// How often a method was called so far.
    pub fn n_calls(&self, method: &str) -> u64 {
        self.state().n_calls.lock().unwrap().get(method).copied().unwrap_or_default()
    }

    /// Waits until a method was called `n` times more: a loop that polls has looked again.
    pub async fn until_called(&self, method: &str, n: u64) {
        self.until_n_calls(method, self.n_calls(method) + n).await;
    }

    /// Waits until a method was called `n` times in all.
    pub async fn until_n_calls(&self, method: &str, n: u64) {
        for _ in 0..1_000 {
            if self.n_calls(method) >= n {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{method} was called {} times, not {n}, after 20 seconds", self.n_calls(method));
    }

    fn state(&self) -> &State {
        &self.target.state
    }
}

async fn answer(body: web::Bytes, target: web::Data<Target>) -> HttpResponse {
    let n_bytes_max = target.state.n_body_bytes_max.load(Ordering::Relaxed);
    if n_bytes_max > 0 && body.len() > n_bytes_max {
        return HttpResponse::PayloadTooLarge().finish();
    }
    target.hear(&body);
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    let mut calls = Vec::new();
    match &request {
        Value::Array(several) => {
            for call in several {
                calls.push(target.receive(call).await);
            }
        }
        one => calls.push(target.receive(one).await),
    }
    // Some faults are of the connection: the first of them is that of the whole request.
    let of_request = calls.iter().filter_map(|call| call.fault).find(is_of_connection);
    match of_request {
        Some(Fault::DropBefore) => return HttpResponse::BadGateway().finish(),
        Some(Fault::BlackHole) => tokio::time::sleep(Duration::from_secs(3_600)).await,
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::WebPage) => {
            return HttpResponse::Ok().content_type("text/html").body("<h1>Be right back</h1>");
        }
        _ => (),
    }
    for call in &mut calls {
        target.judge(call).await;
    }
    let n_times = if let Some(Fault::Duplicate(n)) = of_request { n } else { 1 };
    for _ in 0..n_times {
        if target.forward(&mut calls, request.is_array()).await.is_none() {
            return HttpResponse::BadGateway().finish();
        }
    }
    match of_request {
        Some(Fault::DropAfterForward | Fault::ErrorAfterForward(Trouble::BadGateway)) => {
            HttpResponse::BadGateway().finish()
        }
        Some(Fault::ErrorAfterForward(Trouble::TooManyRequests)) => {
            HttpResponse::TooManyRequests().finish()
        }
        Some(Fault::ErrorAfterForward(Trouble::Garbage)) => {
            HttpResponse::Ok().content_type("application/json").body("{\"jsonrpc\":\"2.0\",\"id\":")
        }
        _ => {
            let answers: Vec<Value> = calls.iter().map(|call| target.reply(call)).collect();
            match request {
                Value::Array(_) => HttpResponse::Ok().json(answers),
                _ => HttpResponse::Ok().json(&answers[0]),
            }
        }
    }
}

impl Target {
    /// The result of a call of our own.
    async fn ask(&self, method: &str, params: Value) -> Option<Value> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.post(&call).await?.get("result").cloned()
    }

    async fn post(&self, request: &Value) -> Option<Value> {
        let url = self.state.url.lock().unwrap().clone();
        self.http.post(url).json(request).send().await.ok()?.json().await.ok()
    }

    fn hear(&self, body: &[u8]) {
        if let Some((words, n_heard)) = self.state.heard.lock().unwrap().as_mut() {
            let text = String::from_utf8_lossy(body).to_lowercase();
            *n_heard += u64::from(text.contains(words.as_str()));
        }
    }

    /// Notes a call that arrived, and how it will misbehave.
    async fn receive(&self, call: &Value) -> Call {
        let method = call["method"].as_str().unwrap_or_default();
        let mut n_sent = None;
        if method == "eth_sendRawTransaction" {
            let mut sent = Sent::now(call["params"][0].as_str().unwrap_or_default());
            sent.was_stored = self.is_stored(sent.hash).await;
            let mut log = self.state.sent.lock().unwrap();
            n_sent = Some(log.len());
            log.push(sent);
        }
        let fault = self.state.faults.lock().unwrap().of_call(method);
        // Last, so that whoever counts calls may change the faults of the next.
        *self.state.n_calls.lock().unwrap().entry(method.to_owned()).or_default() += 1;
        Call { call: call.clone(), fault, behind: None, n_sent, answer: None }
    }

    async fn is_stored(&self, hash: B256) -> Option<bool> {
        let (books, runtime) = self.state.books.lock().unwrap().clone()?;
        let look = async move {
            sqlx::query_scalar("select exists(select from attempt where transaction_hash = $1)")
                .bind(hash.to_vec())
                .fetch_one(&books)
                .await
        };
        // On the test's runtime, because the pool's connections live there.
        let looked = runtime.spawn(tokio::time::timeout(LOOK_TIMEOUT, look));
        looked.await.ok()?.ok()?.ok()
    }

    /// Answers what is not to be forwarded, and turns what is.
    async fn judge(&self, call: &mut Call) {
        let refusal = |refusal: Refusal| json!({ "error": refusal.error(self.dialect()) });
        call.answer = match call.fault {
            Some(Fault::Answer(result)) => {
                Some(json!({ "result": serde_json::from_str::<Value>(result).unwrap() }))
            }
            Some(Fault::ShortRange) if is_long_search(&call.call) => {
                let message = "you can make eth_getLogs requests with up to a 10 block range";
                Some(json!({ "error": { "code": -32_600, "message": message } }))
            }
            Some(Fault::RateLimited) => {
                Some(json!({ "error": { "code": -32_005, "message": "limit exceeded" } }))
            }
            Some(Fault::ShortCalls(n_bytes)) if call.call.to_string().len() > n_bytes => {
                Some(json!({ "error": { "code": -32_000, "message": "request too large" } }))
            }
            Some(Fault::UnknownMethod) => {
                Some(json!({ "error": { "code": -32_601, "message": "Method not found" } }))
            }
            Some(Fault::Refuse(refused)) => Some(refusal(refused)),
            Some(Fault::ChainId(id)) => match call.call["method"].as_str() {
                Some("eth_chainId") => Some(json!({ "result": format!("{id:#x}") })),
                Some("net_version") => Some(json!({ "result": id.to_string() })),
                _ => None,
            },
            Some(Fault::Stale(n_blocks)) => self.look_back(call, n_blocks).await,
            Some(Fault::NoOverrides) if !call.call["params"][2].is_null() => {
                let message = "too many arguments, want at most 2";
                Some(json!({ "error": { "code": -32_602, "message": message } }))
            }
            Some(Fault::GasCap(gas_max)) => {
                let asked = &mut call.call["params"][0];
                let gas = quantity(&asked["gas"]).unwrap_or(u64::MAX).min(gas_max);
                asked["gas"] = json!(format!("{gas:#x}"));
                None
            }
            _ => None,
        };
        if let Some(n_sent) = call.n_sent.filter(|_| call.answer.is_none()) {
            call.answer = self.refuses(n_sent).await.map(refusal);
        }
    }

    async fn look_back(&self, call: &mut Call, n_blocks: u64) -> Option<Value> {
        let behind = Behind::new(self, n_blocks).await?;
        call.behind = Some(behind);
        match behind.look(self, call.call.clone()).await {
            Look::Answered(answer) => return Some(answer),
            Look::Forward(turned) => call.call = turned,
        }
        None
    }

    /// What a stricter pool than anvil's says to a transaction.
    async fn refuses(&self, n_sent: usize) -> Option<Refusal> {
        let sent = self.state.sent.lock().unwrap()[n_sent].clone();
        let is_on = |rule: &AtomicBool| rule.load(Ordering::Relaxed);
        if is_on(&self.state.is_strict_about_size) && sent.n_bytes() > SIZE_MAX {
            return Some(Refusal::Oversized);
        }
        if let Some(new) = sent.envelope.filter(|_| is_on(&self.state.is_strict_about_order)) {
            let parameters = json!([new.sender, "pending"]);
            let next = quantity(&self.ask("eth_getTransactionCount", parameters).await?)?;
            if new.account_nonce > next {
                return Some(Refusal::NonceTooHigh);
            }
        }
        let new = sent.envelope.filter(|_| is_on(&self.state.is_strict_about_replacements))?;
        let (hash, old) = self.pending(new.sender, new.account_nonce).await?;
        (hash != sent.hash && !new.may_replace(&old)).then_some(Refusal::ReplacementUnderpriced)
    }

    /// What the node's pool holds for an account nonce, whoever sent it.
    async fn pending(&self, sender: Address, account_nonce: u64) -> Option<(B256, Envelope)> {
        let nonce = format!("{account_nonce:#x}");
        let found = self.ask("eth_getTransactionBySenderAndNonce", json!([sender, nonce])).await?;
        if found.is_null() || !found["blockHash"].is_null() {
            return None;
        }
        let wei = |key: &str| Some(u128::from(quantity(&found[key])?));
        let envelope = Envelope {
            sender,
            account_nonce,
            gas_limit: quantity(&found["gas"])?,
            fee_wei_max: wei("maxFeePerGas").or_else(|| wei("gasPrice"))?,
            priority_fee_wei_max: wei("maxPriorityFeePerGas").or_else(|| wei("gasPrice"))?,
        };
        Some((found["hash"].as_str()?.parse().ok()?, envelope))
    }

    /// Hands on what has no answer yet or was handed on before; `None` if the node did not answer.
    async fn forward(&self, calls: &mut [Call], is_batch: bool) -> Option<()> {
        let mut onward: Vec<&mut Call> =
            calls.iter_mut().filter(|call| call.answer.is_none() || call.is_forwarded()).collect();
        if onward.is_empty() {
            return Some(());
        }
        for n_sent in onward.iter().filter_map(|call| call.n_sent) {
            self.state.sent.lock().unwrap()[n_sent].n_forwarded += 1;
        }
        let bodies: Vec<Value> = onward.iter().map(|call| call.call.clone()).collect();
        let answer = self.post(&if is_batch { json!(bodies) } else { bodies[0].clone() }).await?;
        let answers = match &answer {
            Value::Array(answers) => answers.as_slice(),
            one => std::slice::from_ref(one),
        };
        for call in &mut onward {
            call.answer = answers.iter().find(|answer| answer["id"] == call.call["id"]).cloned();
        }
        Some(())
    }

    /// What the caller reads.
    fn reply(&self, call: &Call) -> Value {
        let mut answer = call.answer.clone().unwrap_or_else(|| json!({ "result": null }));
        if let (Some(behind), Some(result)) = (call.behind, answer.get_mut("result")) {
            behind.hide(&call.call, result);
        }
        if let Some(Fault::ErrorAfterForward(Trouble::Refused(refusal))) = call.fault {
            answer = json!({ "error": refusal.error(self.dialect()) });
        } else if let Some(refusal) =
            answer.get("error").filter(|_| call.n_sent.is_some()).and_then(Refusal::meant_by_anvil)
        {
            answer["error"] = refusal.error(self.dialect());
        }
        answer["jsonrpc"] = json!("2.0");
        answer["id"] = call.call["id"].clone();
        answer
    }

    fn dialect(&self) -> Dialect {
        *self.state.dialect.lock().unwrap()
    }
}

impl Call {
    /// Answers of the node carry the call's id; answers of ours get it last.
    fn is_forwarded(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.get("id").is_some())
    }
}

fn is_of_connection(fault: &Fault) -> bool {
    match fault {
        Fault::DropBefore
        | Fault::DropAfterForward
        | Fault::ErrorAfterForward(
            Trouble::BadGateway | Trouble::TooManyRequests | Trouble::Garbage,
        )
        | Fault::Delay(_)
        | Fault::Duplicate(_)
        | Fault::BlackHole
        | Fault::WebPage => true,
        Fault::ErrorAfterForward(Trouble::Refused(_))
        | Fault::Stale(_)
        | Fault::ChainId(_)
        | Fault::Refuse(_)
        | Fault::Answer(_)
        | Fault::ShortRange
        | Fault::NoOverrides
        | Fault::GasCap(_)
        | Fault::RateLimited
        | Fault::UnknownMethod
        | Fault::ShortCalls(_) => false,
    }
}

fn is_long_search(call: &Value) -> bool {
    let number = |key: &str| quantity(&call["params"][0][key]);
    number("fromBlock").zip(number("toBlock")).is_some_and(|(from, to)| to - from >= 10)
}
