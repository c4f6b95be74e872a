//! Carries out the schedule, and keeps the processes.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy::primitives::{Address, B256};
use futures_util::future::join_all;
use tokio::{sync::RwLock, time::Instant};

use crate::{
    dice::Dice,
    gather,
    ground::Ground,
    record::Books,
    roster::Roster,
    schedule::{Act, Deed, LEASE_MS, Lane},
    support::{Dialect, Proxy, RPC_URL, Service, WITHOUT_LIMITS, World},
};

/// The keys of the wallets besides the local chain's own. Not its mnemonic, whose accounts cost every
/// start seconds of computing without optimization.
const KEYSTORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/wallets");

pub(crate) struct Conductor {
    /// Whoever starts Postgres again holds it alone: no replica is started meanwhile.
    world: RwLock<World>,
    pub(crate) proxies: Vec<Proxy>,
    /// The accounts that pay gas.
    wallets: Vec<Address>,
    done: Mutex<BTreeMap<&'static str, u64>>,
    ground: Arc<Ground>,
    roster: Arc<Roster>,
    services: Vec<tokio::sync::Mutex<Option<Service>>>,
    logs: PathBuf,
}

impl Conductor {
    /// Starts the replicas, each behind a proxy of its own that is as strict as real nodes are and
    /// speaks as one of them.
    pub(crate) async fn begin(
        world: World,
        ground: Arc<Ground>,
        wallets: Vec<Address>,
        logs: &Path,
    ) -> Self {
        let mut proxies = Vec::new();
        let mut services = Vec::new();
        for dialect in [Dialect::Anvil, Dialect::Geth, Dialect::Reth] {
            let proxy = world.proxy();
            proxy.speak(dialect);
            proxy.enforce_replacement();
            proxy.enforce_size();
            services.push(start(&world, &proxy).await);
            proxies.push(proxy);
        }
        let roster = Arc::new(Roster::new(services.iter().map(|service| service.url.clone())));
        let services = services.into_iter().map(|s| tokio::sync::Mutex::new(Some(s))).collect();
        let (world, done, logs) = (RwLock::new(world), Mutex::default(), logs.to_owned());
        Self { world, proxies, wallets, done, ground, roster, services, logs }
    }

    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster)
    }

    /// What was done, and how often.
    pub(crate) fn done(&self) -> BTreeMap<&'static str, u64> {
        self.done.lock().unwrap().clone()
    }

    /// Ends what is around the replicas, which have stopped.
    pub(crate) async fn end(self) {
        self.world.into_inner().stop().await;
    }

    /// Does what the schedule says, as close to its times as it can. What comes late puts off what
    /// comes after it, so that nothing is broken again the moment it is whole; what would begin after
    /// `length` is left out.
    pub(crate) async fn conduct(&self, acts: &[Act], length: Duration) {
        let began = Instant::now();
        let mut lanes: BTreeMap<Lane, Vec<&Act>> = BTreeMap::new();
        for act in acts {
            lanes.entry(act.deed.lane()).or_default().push(act);
        }
        join_all(lanes.into_iter().map(|(lane, acts)| async move {
            let mut late = Duration::ZERO;
            for together in acts.chunks(lane.n_together()) {
                if together[0].at + late >= length {
                    return;
                }
                for act in together {
                    tokio::time::sleep_until(began + act.at + late).await;
                    self.carry_out(&act.deed).await;
                    self.count(act.deed.name(), 1);
                    late = late.max(began.elapsed().saturating_sub(act.at));
                }
            }
        }))
        .await;
    }

    async fn carry_out(&self, deed: &Deed) {
        match *deed {
            Deed::Misbehave { replica, method, fault } => self.proxies[replica].set(method, fault),
            Deed::Heal { replica } => self.proxies[replica].heal(),
            Deed::Kill { replica } => {
                self.roster.goes_down(replica);
                let service = self.services[replica].lock().await.take();
                let service = service.expect("a replica that runs");
                self.write_log(replica, &service);
                service.kill().await;
            }
            Deed::Start { replica } => {
                let service = start(&*self.world.read().await, &self.proxies[replica]).await;
                self.roster.is_up_at(replica, service.url.clone());
                *self.services[replica].lock().await = Some(service);
            }
            Deed::Pause { replica } => self.signal(replica, "STOP").await,
            Deed::Resume { replica } => self.signal(replica, "CONT").await,
            Deed::RestartPostgres => self.world.write().await.restart_postgres_immediate().await,
            Deed::Reorganize { depth, kept_per_cent, seed } => {
                let ours = self.raws();
                let mut dice = Dice::new(seed);
                let done = self.ground.reorganize(depth, kept_per_cent, &mut dice, ours).await;
                if let Err(error) = done {
                    eprintln!("anvil did not reorganize {depth} blocks: {error}");
                    self.count("reorganizations that anvil refused", 1);
                }
            }
            Deed::Forget { per_cent, seed } => {
                let mut dice = Dice::new(seed);
                for wallet in &self.wallets {
                    let n = self.ground.forget(*wallet, per_cent, &mut dice).await;
                    self.count("transactions dropped from the pool", n);
                }
            }
            Deed::BaseFee { wei } => self.ground.node.next_base_fee(wei).await,
        }
    }

    fn count(&self, what: &'static str, n: u64) {
        *self.done.lock().unwrap().entry(what).or_default() += n;
    }

    async fn signal(&self, replica: usize, name: &str) {
        let service = self.services[replica].lock().await;
        service.as_ref().expect("a replica that runs").signal(name).await;
    }

    /// Every transaction that the replicas tried to send.
    fn raws(&self) -> HashMap<B256, String> {
        let sent = self.proxies.iter().flat_map(Proxy::log);
        sent.map(|sent| (sent.hash, sent.raw)).collect()
    }

    /// The rows of Postgres.
    pub(crate) async fn books(&self) -> Books {
        gather::books(&self.world.read().await.books).await
    }

    /// Waits until nothing is claimed, submitted or open. `false` if that is not so by `end`.
    pub(crate) async fn settle(&self, end: Instant) -> bool {
        let unfinished =
            "select (select count(*) from settlement where status in ('claimed', 'submitted'))
            + (select count(*) from transaction where status = 'open')";
        self.reaches_zero(unfinished, end).await
    }

    /// Waits until everything paid is final. `false` if that is not so by `end`.
    pub(crate) async fn finalize(&self, end: Instant) -> bool {
        let unfinished = "select count(*) from settlement where status in ('included', 'safe')";
        self.reaches_zero(unfinished, end).await
    }

    async fn reaches_zero(&self, sql: &'static str, end: Instant) -> bool {
        while Instant::now() < end {
            if self.world.read().await.count(sql).await == 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }

    /// Stops the replicas as an operator would.
    pub(crate) async fn stop_replicas(&self) {
        for (replica, service) in self.services.iter().enumerate() {
            let service = service.lock().await.take().expect("a replica that runs");
            self.write_log(replica, &service);
            service.stop().await;
        }
    }

    fn write_log(&self, replica: usize, service: &Service) {
        let incarnation = self.roster.place(replica).incarnation;
        let path = self.logs.join(format!("replica-{replica}.{incarnation}.log"));
        std::fs::write(path, service.log()).unwrap();
    }
}

/// A replica behind `proxy`, listening but perhaps not ready.
async fn start(world: &World, proxy: &Proxy) -> Service {
    let lease_ms = LEASE_MS.to_string();
    let settings = [
        (RPC_URL, proxy.url.as_str()),
        ("QUITTANCE__CHAINS__LOCAL__WALLET_KEYSTORE_DIR", KEYSTORE),
        ("QUITTANCE__CHAINS__LOCAL__WALLET_KEYSTORE_PASSWORD", "chaos"),
        ("QUITTANCE__CHAINS__LOCAL__RPC_TIMEOUT_MS", "1000"),
        ("QUITTANCE__REPLICA__LEASE_MS", &lease_ms),
        // So that some callers are told to come back.
        ("QUITTANCE__SETTLE__WAIT_MS", "8000"),
    ];
    let settings: Vec<_> = settings.into_iter().chain(WITHOUT_LIMITS).collect();
    Service::spawn(world, &settings).await
}
