//! A JSON-RPC proxy that misbehaves on request, and remembers every transaction it was handed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

/// How a method misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers 502 and forwards nothing.
    DropBefore,
    /// Forwards, and answers 502.
    DropAfterForward,
    /// Answers this result, and forwards nothing.
    Answer(&'static str),
    /// Refuses searches for logs over more than ten blocks, as free plans of providers do.
    ShortRange,
    /// Answers nothing for longer than any caller waits.
    BlackHole,
    /// Answers 200 and a page for people.
    WebPage,
    /// Answers 200 and, as JSON-RPC, that there were too many calls.
    RateLimited,
}

#[derive(Clone, Default)]
struct Rules {
    faults: Arc<Mutex<HashMap<String, Fault>>>,
    sent: Arc<Mutex<Vec<String>>>,
    target: Arc<Mutex<String>>,
}

/// Stands for every method in [`Rules::faults`].
const EVERY_METHOD: &str = "*";

/// A running proxy.
pub struct Proxy {
    pub url: String,
    rules: Rules,
}

#[derive(Clone)]
struct Target {
    http: reqwest::Client,
    rules: Rules,
}

impl Proxy {
    /// A proxy in front of `url` that behaves until told otherwise.
    pub fn before(url: &str) -> Self {
        let rules = Rules { target: Arc::new(Mutex::new(url.to_owned())), ..Rules::default() };
        let target = Target { http: reqwest::Client::new(), rules: rules.clone() };
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(target.clone()))
                .app_data(web::PayloadConfig::new(1 << 22))
                .default_service(web::to(forward))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        tokio::spawn(server.run());
        Self { url, rules }
    }

    /// Makes `method` misbehave from now on.
    pub fn set(&self, method: &str, fault: Fault) {
        self.rules.faults.lock().unwrap().insert(method.to_owned(), fault);
    }

    /// Makes every method misbehave from now on.
    pub fn set_all(&self, fault: Fault) {
        self.set(EVERY_METHOD, fault);
    }

    /// Forwards to another node from now on.
    pub fn retarget(&self, url: &str) {
        url.clone_into(&mut self.rules.target.lock().unwrap());
    }

    /// Makes everything behave again.
    pub fn heal(&self) {
        self.rules.faults.lock().unwrap().clear();
    }

    /// Every raw transaction that the service tried to send, in order.
    pub fn sent(&self) -> Vec<String> {
        self.rules.sent.lock().unwrap().clone()
    }
}

async fn forward(body: web::Bytes, target: web::Data<Target>) -> HttpResponse {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    let calls = match &request {
        Value::Array(calls) => calls.clone(),
        call => vec![call.clone()],
    };
    let mut fault = None;
    for call in &calls {
        let method = call["method"].as_str().unwrap_or_default();
        if method == "eth_sendRawTransaction" {
            let raw = call["params"][0].as_str().unwrap_or_default().to_owned();
            target.rules.sent.lock().unwrap().push(raw);
        }
        let faults = target.rules.faults.lock().unwrap();
        fault = fault.or_else(|| faults.get(method).or_else(|| faults.get(EVERY_METHOD)).copied());
    }
    match fault {
        Some(Fault::Answer(result)) => {
            let result: Value = serde_json::from_str(result).unwrap();
            return reply(&calls[0], "result", result);
        }
        Some(Fault::ShortRange) if is_long_search(&calls[0]) => {
            let message = "you can make eth_getLogs requests with up to a 10 block range";
            return reply(&calls[0], "error", json!({ "code": -32600, "message": message }));
        }
        Some(Fault::DropBefore) => return HttpResponse::BadGateway().finish(),
        Some(Fault::BlackHole) => tokio::time::sleep(Duration::from_secs(3_600)).await,
        Some(Fault::WebPage) => {
            return HttpResponse::Ok().content_type("text/html").body("<h1>Be right back</h1>");
        }
        Some(Fault::RateLimited) => return HttpResponse::Ok().json(too_many(&request)),
        Some(Fault::DropAfterForward | Fault::ShortRange) | None => (),
    }
    let url = target.rules.target.lock().unwrap().clone();
    let sent =
        target.http.post(url).header("Content-Type", "application/json").body(body).send().await;
    let Ok(answer) = sent else { return HttpResponse::BadGateway().finish() };
    let answer = answer.bytes().await.unwrap_or_default();
    if fault == Some(Fault::DropAfterForward) {
        return HttpResponse::BadGateway().finish();
    }
    HttpResponse::Ok().content_type("application/json").body(answer)
}

fn too_many(request: &Value) -> Value {
    let refusal = |call: &Value| {
        let error = json!({ "code": -32_005, "message": "limit exceeded" });
        json!({ "jsonrpc": "2.0", "id": call["id"], "error": error })
    };
    match request {
        Value::Array(calls) => calls.iter().map(refusal).collect(),
        call => refusal(call),
    }
}

fn reply(call: &Value, key: &str, value: Value) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "jsonrpc": "2.0", "id": call["id"], key: value }))
}

fn is_long_search(call: &Value) -> bool {
    let number = |key: &str| {
        let text = call["params"][0][key].as_str()?;
        u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    number("fromBlock").zip(number("toBlock")).is_some_and(|(from, to)| to - from >= 10)
}
