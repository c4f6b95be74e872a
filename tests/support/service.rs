//! The real binary, as a process of its own.

use std::{
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{Client, Method, StatusCode, header::HeaderMap};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::World;

/// How long a process may take to listen: chaos has several start at once on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings under which no number of callers is too many: what is measured is not how they are refused.
pub const WITHOUT_LIMITS: [(&str, &str); 8] = [
    ("QUITTANCE__LIMITS__VERIFY_PER_SECOND", "100000"),
    ("QUITTANCE__LIMITS__VERIFY_BURST", "1000000"),
    ("QUITTANCE__LIMITS__VERIFY_UNDER_WAY_MAX", "10000"),
    ("QUITTANCE__LIMITS__SETTLE_PER_SECOND", "100000"),
    ("QUITTANCE__LIMITS__SETTLE_BURST", "1000000"),
    ("QUITTANCE__LIMITS__SETTLE_UNDER_WAY_MAX", "10000"),
    ("QUITTANCE__LIMITS__ADDRESS_PER_SECOND", "100000"),
    ("QUITTANCE__LIMITS__ADDRESS_BURST", "1000000"),
];

/// A running `quittance serve`. Dropping it kills the process.
pub struct Service {
    pub url: String,
    pub operations_url: String,
    pub api_key: String,
    http: Client,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// An HTTP answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Service {
    pub async fn start(world: &World, settings: &[(&str, &str)]) -> Self {
        let mut service = Self::spawn(world, settings).await;
        service.until_ready().await;
        service
    }

    fn serve(world: &World, settings: &[(&str, &str)], stderr: Stdio) -> Child {
        Command::new(env!("CARGO_BIN_EXE_quittance"))
            .arg("serve")
            .envs(world.environment())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Starts a process that is to end by itself before it is of use to anybody, and waits for that.
    pub async fn end_of_start(world: &World, settings: &[(&str, &str)]) -> ExitStatus {
        let mut process = Self::serve(world, settings, Stdio::null());
        let ended = tokio::time::timeout(Duration::from_secs(40), process.wait()).await;
        ended.expect("the service goes on").unwrap()
    }

    /// Starts the process and waits until it listens, but not until it is ready.
    pub async fn spawn(world: &World, settings: &[(&str, &str)]) -> Self {
        let mut process = Self::serve(world, settings, Stdio::piped());
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (kept, (found, addresses)) = (Arc::clone(&log), tokio::sync::oneshot::channel());
        tokio::spawn(async move {
            let mut found = Some(found);
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(addresses) = listening(&line)
                    && let Some(found) = found.take()
                {
                    let _ = found.send(addresses);
                }
                kept.lock().unwrap().push(line);
            }
        });
        let addresses = tokio::time::timeout(START_TIMEOUT, addresses).await;
        let Ok(Ok((address, operations))) = addresses else {
            panic!("the service did not start:\n{}", log.lock().unwrap().join("\n"));
        };
        Self {
            url: format!("http://{address}"),
            operations_url: format!("http://{operations}"),
            api_key: world.keys.merchant.reveal().to_owned(),
            http: Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
            process,
            log,
        }
    }

    pub async fn until_ready(&mut self) {
        for _ in 0..1_000 {
            let answer = self.http.get(format!("{}/readyz", self.operations_url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the service did not become ready:\n{}", self.log());
    }

    /// What the process has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// `POST /verify` with the merchant's key; the JSON of a 200.
    pub async fn verify(&self, payment: &Value) -> Value {
        self.ask("/verify", payment).await
    }

    /// `POST /settle` with the merchant's key; the JSON of a 200.
    pub async fn settle(&self, payment: &Value) -> Value {
        self.ask("/settle", payment).await
    }

    /// `POST /settle` with an `Idempotency-Key`, whatever comes back.
    pub async fn settle_with_key(&self, payment: &Value, key: &str) -> Answer {
        let headers = [self.authorization(), ("Idempotency-Key", key.to_owned())];
        self.send(Method::POST, "/settle", &headers, payment.to_string()).await
    }

    /// `POST` with the merchant's key, whatever comes back.
    pub async fn post(&self, path: &str, payment: &Value) -> Answer {
        self.send(Method::POST, path, &[self.authorization()], payment.to_string()).await
    }

    /// Any request, with exactly these headers and `Content-Type: application/json` if none is given.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: String,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).body(body);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("Content-Type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        Self::read(request.send().await.unwrap()).await
    }

    /// `GET` from the operations port.
    pub async fn operations(&self, path: &str) -> Answer {
        let response = self.http.get(format!("{}{path}", self.operations_url)).send().await;
        Self::read(response.unwrap()).await
    }

    pub fn authorization(&self) -> (&'static str, String) {
        ("Authorization", format!("Bearer {}", self.api_key))
    }

    pub fn pid(&self) -> u32 {
        self.process.id().expect("the process runs")
    }

    /// `kill -9`, and waits until the process is gone.
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// SIGTERM, and waits for a clean end.
    pub async fn stop(mut self) {
        self.signal("TERM").await;
        let ended = tokio::time::timeout(Duration::from_secs(40), self.process.wait()).await;
        let status = ended.expect("the service stops").unwrap();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// SIGSTOP: the process does nothing until it is resumed, and does not know that it did not.
    pub async fn pause(&self) {
        self.signal("STOP").await;
    }

    /// SIGCONT.
    pub async fn resume(&self) {
        self.signal("CONT").await;
    }

    /// Waits until the process ends by itself, as at a crash point.
    pub async fn ended(mut self) -> ExitStatus {
        let ended = tokio::time::timeout(Duration::from_secs(40), self.process.wait()).await;
        ended.unwrap_or_else(|_| panic!("the service goes on:\n{}", self.log())).unwrap()
    }

    pub async fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
    }

    async fn ask(&self, path: &str, payment: &Value) -> Value {
        let answer = self.post(path, payment).await;
        assert_eq!(answer.status, StatusCode::OK, "{}\n{}", answer.body, self.log());
        answer.json()
    }

    async fn read(response: reqwest::Response) -> Answer {
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }
}

fn listening(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let is_listening = line["message"] == "listening";
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    is_listening.then(|| Some((text("address")?, text("operations")?)))?
}
