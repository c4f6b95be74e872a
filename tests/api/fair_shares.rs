//! One who asks too much takes nothing from others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{callers::merchant_key, payments::AMOUNT, support::World};

/// Asks by that many connections, each again as soon as it is answered, and says how often it was
/// answered, and how often refused.
/// In a thread of its own, so that who is measured waits for the service alone.
fn hammer(
    address: &str,
    request: &str,
    n_connections: usize,
    is_over: &AtomicBool,
) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = async || {
        let (mut n_answered, mut n_refused, mut buffer) = (0, 0, vec![0; 4_096]);
        while !is_over.load(Ordering::Relaxed) {
            let mut connection = TcpStream::connect(address).await.unwrap();
            // An answer is small and comes in one piece. One that closes the connection ends the loop.
            while !is_over.load(Ordering::Relaxed)
                && connection.write_all(request.as_bytes()).await.is_ok()
            {
                let Ok(n @ 1..) = connection.read(&mut buffer).await else { break };
                n_answered += 1;
                n_refused += usize::from(buffer[..n].starts_with(b"HTTP/1.1 429"));
            }
        }
        (n_answered, n_refused)
    };
    let counts = runtime.block_on(join_all((0..n_connections).map(|_| ask())));
    counts.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// One merchant asks by 500 connections without a pause, and another by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_that_asks_without_a_pause_takes_nothing_from_another() {
    const N_CONNECTIONS: usize = 500;
    const N_ASKED: usize = 200;
    let world = World::automine().await;
    let settings = [
        ("QUITTANCE__LIMITS__VERIFY_PER_SECOND", "200"),
        ("QUITTANCE__LIMITS__VERIFY_BURST", "400"),
        ("QUITTANCE__LIMITS__ADDRESS_PER_SECOND", "100000"),
        ("QUITTANCE__LIMITS__ADDRESS_BURST", "1000000"),
    ];
    let service = world.service_with(&settings).await;
    let greedy = merchant_key(&world, "greedy").await;
    let payments: Vec<String> = (0..8).map(|n| world.payment(n, AMOUNT).to_string()).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let hammering = std::thread::spawn({
        let (address, is_over) = (service.url.replace("http://", ""), Arc::clone(&is_over));
        let request = format!(
            "POST /verify HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {greedy}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
            payments[0].len(),
            payments[0]
        );
        move || hammer(&address, &request, N_CONNECTIONS, &is_over)
    });
    // It is refused by now, and goes on.
    while !service.operations("/metrics").await.body.contains("quittance_rate_limited_total") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut waits = Vec::new();
    while waits.len() < N_ASKED {
        let started = Instant::now();
        let payment = payments[waits.len() % payments.len()].clone();
        let answer =
            service.send(Method::POST, "/verify", &[service.authorization()], payment).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["isValid"], json!(true), "{}", answer.body);
        waits.push(started.elapsed());
    }
    is_over.store(true, Ordering::Relaxed);
    let (n_answered, n_refused) = hammering.join().unwrap();
    waits.sort();
    let (p50, p99) = (waits[N_ASKED / 2], waits[N_ASKED * 99 / 100]);
    println!(
        "{N_ASKED} asked, p50 {p50:?}, p99 {p99:?}; of the other {n_answered}, {n_refused} refused"
    );
    assert!(n_refused > N_CONNECTIONS, "{n_refused}");
    // Its one connection was heard as often as each of the others, however busy the machine is; and on one
    // that is not, nobody notices them.
    let n_each = n_answered / N_CONNECTIONS;
    assert!(N_ASKED >= n_each, "{N_ASKED}, and {n_each} by each of {N_CONNECTIONS}");
    assert!(p50 < Duration::from_secs(1) && p99 < Duration::from_secs(5), "{p50:?}, {p99:?}");
    service.stop().await;
    world.stop().await;
}
