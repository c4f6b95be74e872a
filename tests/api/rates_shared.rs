//! Replicas with one Redis share a merchant's rate; without it, each holds merchants to it by itself.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use quittance::limits::RATE_SCRIPT;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;

use crate::support::{Answer, REDIS_URL, Redis, Service, World};

const PER_SECOND: f64 = 200.0;
const BURST: f64 = 100.0;
const RATE: [(&str, &str); 2] =
    [("QUITTANCE__LIMITS__VERIFY_PER_SECOND", "200"), ("QUITTANCE__LIMITS__VERIFY_BURST", "100")];
/// How many ask at each replica, each again as soon as it is answered. A refusal takes a tenth of a second:
/// they ask six times as often as they may.
const N_CALLERS: usize = 64;

/// Callers of one replica, and when each of them was answered that it may.
struct Callers {
    admitted: Arc<Mutex<Vec<Instant>>>,
    is_over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    fn of(service: &Service) -> Self {
        let (admitted, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let http = reqwest::Client::new();
        let tasks = (0..N_CALLERS).map(|_| {
            let request = http.post(format!("{}/verify", service.url));
            let request = request.bearer_auth(&service.api_key).body("{}");
            let request = request.header("Content-Type", "application/json");
            let (admitted, is_over): (Arc<Mutex<Vec<Instant>>>, _) =
                (Arc::clone(&admitted), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = request.try_clone().unwrap().send().await.unwrap();
                    match answer.status().as_u16() {
                        200 => admitted.lock().unwrap().push(Instant::now()),
                        status => assert_eq!(status, 429),
                    }
                    // Much more often than is allowed, and not so often that nothing else is done.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        let tasks = tasks.collect();
        Self { admitted, is_over, tasks }
    }

    /// When they were admitted since then.
    fn since(&self, moment: Instant) -> Vec<Instant> {
        let admitted = self.admitted.lock().unwrap();
        admitted.iter().copied().filter(|at| *at >= moment).collect()
    }

    async fn end(self) -> Vec<Instant> {
        self.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut *self.admitted.lock().unwrap())
    }
}

/// No more passed than may, at any moment.
fn assert_within(what: &str, since: Instant, admitted: &mut [Instant]) {
    admitted.sort();
    for (n, at) in (1_u32..).zip(admitted.iter()) {
        let may = (BURST + PER_SECOND * (*at - since).as_secs_f64()) * 1.02;
        assert!(f64::from(n) <= may, "{what}: {n} passed after {:?}, {may:.0} may", *at - since);
    }
}

/// No fewer passed than may: what was not used is still there, as the last answer says.
fn assert_used(since: Instant, n_passed: usize, last: &Answer, asked: Instant) {
    let left = last.header("ratelimit").unwrap().strip_prefix("\"verify\";r=").unwrap();
    let left: u32 = left.strip_suffix(";t=1").unwrap().parse().unwrap();
    let n = f64::from(u32::try_from(n_passed).unwrap() + u32::from(last.status == 200) + left);
    let may = (BURST + PER_SECOND * (asked - since).as_secs_f64()) * 0.98;
    assert!(
        n >= may,
        "{n_passed} passed after {:?} and {left} are left, {may:.0} may",
        asked - since
    );
}

/// How many requests were counted by Redis and by the process.
async fn counted(service: &Service) -> [u64; 2] {
    let metrics = service.operations("/metrics").await.body;
    ["redis", "process"].map(|by| {
        let name = format!("quittance_rate_limits_total{{by=\"{by}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().unwrap())
    })
}

async fn until_redis_is_used(service: &Service, is_used: bool) {
    let line = format!("quittance_redis_up{{for=\"limits\"}} {}", u8::from(is_used));
    for _ in 0..1_000 {
        if service.operations("/metrics").await.body.contains(&line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not after 10 seconds: {line}\n{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_a_limit_and_hold_it_by_themselves_while_redis_is_away() {
    let world = World::automine().await;
    let mut redis = Redis::start().await;
    let url = redis.url.clone();
    let settings = [&RATE[..], &[(REDIS_URL, &*url)]].concat();
    let replicas = world.replicas_with(&[&settings, &settings]).await;
    for replica in &replicas {
        until_redis_is_used(replica, true).await;
    }

    let started = Instant::now();
    let callers: Vec<_> = replicas.iter().map(Callers::of).collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut shared = Vec::new();
    for callers in callers {
        shared.extend(callers.end().await);
    }
    for replica in &replicas {
        let [by_redis, by_process] = counted(replica).await;
        assert!(by_redis > 100 && by_process == 0, "{by_redis} and {by_process}");
    }
    let asked = Instant::now();
    let last = replicas[0].post("/verify", &serde_json::json!({})).await;
    assert_within("shared", started, &mut shared);
    assert_used(shared[0], shared.len(), &last, asked);

    let callers: Vec<_> = replicas.iter().map(Callers::of).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let killed = Instant::now();
    redis.kill().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (replica, callers) in replicas.iter().zip(&callers) {
        let mut alone = callers.since(killed);
        assert_within("alone", killed, &mut alone);
        // No fewer than the rate, whatever was left of the burst.
        let n = f64::from(u32::try_from(alone.len()).unwrap());
        assert!(n >= PER_SECOND * 1.5, "{n} passed in two seconds");
        assert!(counted(replica).await[1] > 100);
    }

    // An empty one.
    redis.start_again().await;
    for replica in &replicas {
        until_redis_is_used(replica, true).await;
    }
    // From the restart on: what is counted before both are back is the process's.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let back = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut shared: Vec<_> = callers.iter().flat_map(|callers| callers.since(back)).collect();
    assert_within("shared again", back, &mut shared);
    for callers in callers {
        callers.end().await;
    }
    for replica in replicas {
        let log = replica.log();
        let lines = |said: &str| {
            log.lines().filter(|line| line.contains(said) && line.contains("limits")).count()
        };
        assert_eq!([lines("Redis is not used"), lines("Redis answers")], [1, 2], "{log}");
        replica.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_slow_or_talks_nonsense_delays_nobody() {
    let world = World::automine().await;
    let redis = Redis::start().await;
    // So few a second that what Redis holds is still there when it is looked at.
    let settings = [
        ("QUITTANCE__LIMITS__VERIFY_PER_SECOND", "1"),
        ("QUITTANCE__LIMITS__VERIFY_BURST", "100"),
        (REDIS_URL, &*redis.url),
    ];
    let service = world.service_with(&settings).await;
    until_redis_is_used(&service, true).await;
    let ask = async || {
        let started = Instant::now();
        let answer = service.post("/verify", &serde_json::json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    };
    ask().await;
    assert_eq!(counted(&service).await, [1, 0]);
    let [key] = redis.command::<[String; 1]>(&["keys", "quittance:rate:*"]).await;

    redis.pause().await;
    ask().await;
    ask().await;
    assert_eq!(counted(&service).await, [1, 2]);
    redis.resume().await;
    until_redis_is_used(&service, true).await;
    ask().await;
    assert_eq!(counted(&service).await, [2, 2]);

    let () = redis.command(&["del", &key]).await;
    let () = redis.command(&["rpush", &key, "nonsense"]).await;
    ask().await;
    assert_eq!(counted(&service).await, [2, 3]);
    // A number that cannot be one: from nothing on.
    let () = redis.command(&["set", &key, "nonsense"]).await;
    until_redis_is_used(&service, true).await;
    ask().await;
    assert_eq!(counted(&service).await, [3, 3]);
    // The script is gone, and is there again.
    let () = redis.command(&["script", "flush"]).await;
    ask().await;
    until_redis_is_used(&service, true).await;
    ask().await;
    assert_eq!(counted(&service).await, [4, 4]);
    service.stop().await;
    world.stop().await;
}

/// One step of the script at a moment, in microseconds: whether it passed, how many are left, and the
/// wait.
async fn step(
    connection: &mut MultiplexedConnection,
    (per_second, burst): (u32, u32),
    now: i64,
) -> (bool, u32, i64) {
    let mut eval = redis::cmd("eval");
    eval.arg(RATE_SCRIPT).arg(1).arg(format!("test:{per_second}:{burst}"));
    eval.arg(per_second).arg(burst).arg(now).query_async(connection).await.unwrap()
}

async fn connection(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(&*redis.url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_limit_is_exact_whatever_the_rate() {
    let redis = Redis::start().await;
    let mut connection = connection(&redis).await;
    // About the magnitude of today.
    let began = 50_000_000_000_000_i64;
    for (rate, micros, n_steps) in [
        ((1, 1), 10_000, 1_000),
        ((3, 2), 10_000, 1_000),
        ((70_000, 10), 5, 4_000),
        ((100_000, 2), 3, 4_000),
    ] {
        let (per_second, burst) = rate;
        for n in 1..=burst {
            assert_eq!(step(&mut connection, rate, began).await, (true, burst - n, 0), "{rate:?}");
        }
        let (passes, left, wait) = step(&mut connection, rate, began).await;
        let interval = 1_000_000.0 / f64::from(per_second);
        assert!(!passes && left == 0, "{rate:?}");
        #[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "it is small")]
        let wait = wait as f64;
        assert!((interval - 0.1..=interval + 1.0).contains(&wait), "{rate:?}: {wait}");
        let mut n_passed = 0_u32;
        for n in 1..=n_steps {
            n_passed += u32::from(step(&mut connection, rate, began + n * micros).await.0);
        }
        #[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "it is small")]
        let may = (n_steps * micros) as f64 / interval;
        let n_passed = f64::from(n_passed);
        assert!(
            (may * 0.99 - 1.0..=may * 1.001 + 1.0).contains(&n_passed),
            "{rate:?}: {n_passed} of {may}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_locks_nobody_out_and_lets_no_more_than_a_burst_in() {
    const HOUR: i64 = 3_600_000_000;
    let redis = Redis::start().await;
    let mut connection = connection(&redis).await;
    let rate = (10, 20);
    let interval = 100_000;
    let mut now = 50_000_000_000_000_i64;
    for (what, by, may) in [
        // Set back, it is as if everything was just used: one more after an interval.
        ("back", -HOUR, 0),
        ("a little back", -interval, 0),
        ("ahead", HOUR, 20),
        ("before the year 2025", -50_000_000_000_000 - HOUR, 0),
    ] {
        while step(&mut connection, rate, now).await.0 {}
        now += by;
        let mut n_passed = 0;
        while step(&mut connection, rate, now).await.0 {
            n_passed += 1;
        }
        assert_eq!(n_passed, may, "{what}");
        for _ in 0..3 {
            let (_, _, wait) = step(&mut connection, rate, now).await;
            assert!((1..=interval).contains(&wait), "{what}: {wait}");
            now += wait;
            assert_eq!(step(&mut connection, rate, now).await, (true, 0, 0), "{what}");
        }
    }
}
