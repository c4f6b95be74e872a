//! The surroundings of a service: database, chain, merchant and buyers.

use std::{path::PathBuf, time::Duration};

use alloy::primitives::{Address, Bytes};
use quittance::{
    app::dev::{Buyer, ChainRequest, DevKeys, DevOptions, DevServices, PrivatePostgres},
    chain::settler_deployment,
    domain::{Amount, Authorization, UnixTime},
    engine::{KeySources, Keys},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sqlx::PgPool;
use tokio::process::Command;

use futures_util::future::join_all;

use super::{Draft, Node, PgProxy, Proxy, Service, Signed, spare_node::SpareNode};

/// The setting that says where the chain is; several URLs are separated by commas.
pub const RPC_URL: &str = "QUITTANCE__CHAINS__LOCAL__RPC_URL";
/// The setting that says where the books are.
pub const DATABASE_URL: &str = "QUITTANCE__DATABASE__URL";
/// The setting that gives a service the keys of [`World::add_wallet`], and its value: the local
/// chain's mnemonic (anvil-scripts/lib/accounts.mjs).
pub const WALLET_MNEMONIC: (&str, &str) = (
    "QUITTANCE__CHAINS__LOCAL__WALLET_MNEMONIC",
    "never put real coin behind public test seed only local market token",
);
/// The gas of a block, as the local chain starts with it.
pub const BLOCK_GAS_LIMIT: u64 = 400_000_000;
/// More than a simple call uses, so that a block with it has less room than its limit.
const FILLER_GAS: u64 = 100_000;

/// Everything a service needs. Dropping it kills what it started.
pub struct World {
    pub services: DevServices,
    pub keys: DevKeys,
    /// Straight to the chain, past any proxy.
    pub node: Node,
    /// Straight to the books.
    pub books: PgPool,
    state_dir: PathBuf,
    spare_node: Option<SpareNode>,
}

impl World {
    /// A world whose chain mines each transaction at once.
    pub async fn automine() -> Self {
        Self::start(ChainRequest::default()).await
    }

    /// A world whose chain mines when told to.
    pub async fn stepped() -> Self {
        Self::start(ChainRequest { no_mining: true, ..ChainRequest::default() }).await
    }

    pub async fn start(chain: ChainRequest) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let state_dir =
            std::env::temp_dir().join(format!("quittance-test-{}", uuid::Uuid::now_v7()));
        let options = DevOptions {
            state_dir: state_dir.clone(),
            anvil_scripts: root.join("anvil-scripts"),
            chain,
            port: 0,
            operations_port: 0,
            postgres_port: 0,
        };
        let services = DevServices::start(&options).await.unwrap();
        let keys = services.onboard().await.unwrap();
        let node = Node::new(&services.chain.rpc_url);
        let books = PgPool::connect(&services.postgres.url("quittance")).await.unwrap();
        Self { services, keys, node, books, state_dir, spare_node: None }
    }

    /// A running service over this world.
    pub async fn service(&self) -> Service {
        self.service_with(&[]).await
    }

    /// A running service with further settings, as environment variables.
    pub async fn service_with(&self, settings: &[(&str, &str)]) -> Service {
        Service::start(self, settings).await
    }

    /// Running services over the same books and the same chain.
    pub async fn replicas(&self, n: usize) -> Vec<Service> {
        self.replicas_with(&vec![&[][..]; n]).await
    }

    /// One running service for each list of settings, over the same books and the same chain.
    pub async fn replicas_with(&self, settings: &[&[(&str, &str)]]) -> Vec<Service> {
        join_all(settings.iter().map(|settings| self.service_with(settings))).await
    }

    /// A proxy in front of the chain that looks into the books whenever it is handed a transaction.
    pub fn proxy(&self) -> Proxy {
        let proxy = Proxy::before(&self.services.chain.rpc_url);
        proxy.watch(&self.books);
        proxy
    }

    /// A proxy in front of the books; [`DATABASE_URL`] takes its URL.
    pub async fn pg_proxy(&self) -> PgProxy {
        PgProxy::before(&self.services.postgres.url("quittance")).await
    }

    /// Puts another node in the place of the chain's, with the same blocks and an empty pool, as
    /// after a crash. It is at another URL: proxies are to be retargeted to `node.url()`, and
    /// services that were started without one stay with the old node, which mines no more.
    /// The blocks "safe" and "finalized" are as far from the head as anvil has them by default.
    pub async fn restart_node(&mut self) {
        let spare = SpareNode::start(&self.node, self.services.chain.chain_id).await;
        self.node = Node::new(&spare.url);
        self.services.chain.rpc_url.clone_from(&spare.url);
        self.spare_node = Some(spare);
    }

    /// SIGSTOP to the node that [`World::restart_node`] started: it takes connections and answers
    /// nothing.
    pub async fn pause_node(&self) {
        self.spare_node.as_ref().expect("the node was restarted").signal("STOP").await;
    }

    /// SIGCONT.
    pub async fn resume_node(&self) {
        self.spare_node.as_ref().expect("the node was restarted").signal("CONT").await;
    }

    /// A stranger's call, which offers more than any of ours and so comes first in its block.
    pub async fn stranger_calls(&self, to: Address, data: Bytes, gas_limit: u64) -> Signed {
        let chain = &self.services.chain;
        let n_waiting = self.node.pool(chain.stranger.address).await.len();
        let account_nonce = self.node.account_nonce(chain.stranger.address).await
            + u64::try_from(n_waiting).unwrap();
        let draft = Draft { to, data, gas_limit, ..Draft::new(account_nonce) };
        let signed = draft.sign(&chain.stranger, chain.chain_id);
        self.node.send_raw(&signed.raw).await.unwrap();
        signed
    }

    /// Fills the next block: in it a stranger takes so much that a transaction with this gas limit
    /// finds no room, although a pool would take it. Until the block gas limit is set again.
    pub async fn leave_no_room_for(&self, gas_limit: u64) {
        self.node.set_block_gas_limit(gas_limit + 10_000).await;
        // Ten gas a byte of zero (EIP-7623): 71,000 in all.
        let data = vec![0; 5_000].into();
        self.stranger_calls(Address::repeat_byte(0x77), data, FILLER_GAS).await;
    }

    /// Puts the batch settler where services look for it, as anybody may, and mines a block.
    pub async fn deploy_settler(&self) {
        let (to, data) = settler_deployment();
        let deployed = self.stranger_calls(to, data, 1_000_000).await;
        self.node.mine(1).await;
        assert_eq!(self.node.receipt(deployed.hash).await.unwrap()["status"], "0x1");
    }

    /// Makes an account of the local chain's mnemonic a wallet, with as much gas money as the first
    /// one. Services need [`WALLET_MNEMONIC`] to sign with it.
    pub async fn add_wallet(&self, index: u32) -> Address {
        let mnemonic = Some(SecretString::from(WALLET_MNEMONIC.1));
        let keys = Keys::open(KeySources { mnemonic, ..KeySources::default() }).unwrap();
        let address = keys.mnemonic_address(index).unwrap();
        self.node.set_balance(address, 10_u128.pow(20)).await;
        sqlx::query(
            "insert into wallet (chain_id, address, next_account_nonce) values ($1, $2, $3)",
        )
        .bind(self.services.chain.chain_id.to_string())
        .bind(address.to_vec())
        .bind(i64::try_from(self.node.account_nonce(address).await).unwrap())
        .execute(&self.books)
        .await
        .unwrap();
        address
    }

    /// The settings of a service over this world, as environment variables.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let chain = &self.services.chain;
        let database_url = self.services.settings.database.url.expose_secret();
        let pepper = self.services.settings.keys.pepper().unwrap().expose_secret();
        vec![
            ("QUITTANCE__KEYS__PEPPER", pepper.to_owned()),
            ("QUITTANCE__SERVER__PORT", "0".to_owned()),
            ("QUITTANCE__OPERATIONS__PORT", "0".to_owned()),
            (DATABASE_URL, database_url.to_owned()),
            ("QUITTANCE__CHAINS__LOCAL__ID", chain.chain_id.to_string()),
            (RPC_URL, chain.rpc_url.clone()),
            ("QUITTANCE__CHAINS__LOCAL__WALLET_PRIVATE_KEY", chain.wallet.private_key.clone()),
            ("QUITTANCE__CHAINS__LOCAL__TEST", "true".to_owned()),
        ]
    }

    /// Stops Postgres as an operator would, and waits until it is gone.
    pub async fn stop_postgres(&self) {
        self.end_postgres("INT").await;
    }

    /// Stops Postgres as `pg_ctl stop -m immediate` does, without a word to its clients, and starts
    /// it again, so that it recovers as after a crash.
    pub async fn restart_postgres_immediate(&mut self) {
        self.end_postgres("QUIT").await;
        self.start_postgres().await;
    }

    async fn end_postgres(&self, signal: &str) {
        let pid_file = self.state_dir.join("postgres/postmaster.pid");
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let kill = format!("kill -{signal} {}", pid.lines().next().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
        for _ in 0..1_000 {
            if !pid_file.exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("postgres did not stop within 20 seconds");
    }

    /// What the running Postgres has logged.
    pub fn postgres_log(&self) -> PathBuf {
        self.state_dir.join("postgres.log")
    }

    /// Starts Postgres again, with the data and at the port it had.
    pub async fn start_postgres(&mut self) {
        let url = reqwest::Url::parse(&self.services.postgres.url("quittance")).unwrap();
        let data = self.state_dir.join("postgres");
        self.services.postgres = PrivatePostgres::start(&data, url.port().unwrap()).await.unwrap();
    }

    /// The n-th buyer with money.
    pub fn buyer(&self, n: usize) -> Buyer {
        let chain = &self.services.chain;
        Buyer::new(&chain.payers[n], chain.market()).unwrap()
    }

    /// A buyer without money.
    pub fn pauper(&self) -> Buyer {
        let chain = &self.services.chain;
        Buyer::new(&chain.pauper, chain.market()).unwrap()
    }

    /// A fresh authorization of the n-th buyer: `amount` base units to the payee.
    pub fn authorization(&self, n: usize, amount: u64) -> Authorization {
        let amount = Amount::parse(&amount.to_string()).unwrap();
        self.buyer(n).authorization(self.services.chain.payee.address, amount, now())
    }

    /// A fresh payment of the n-th buyer, as a resource server would send it.
    pub fn payment(&self, n: usize, amount: u64) -> Value {
        self.buyer(n).request(&self.authorization(n, amount)).unwrap()
    }

    /// What the payee holds, in base units.
    pub async fn payee_balance(&self) -> u64 {
        let chain = &self.services.chain;
        self.node.token_balance(chain.usdc, chain.payee.address).await
    }

    /// One number from the books.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.books).await.unwrap()
    }

    /// Waits until a number in the books is `expected`.
    pub async fn until(&self, sql: &'static str, expected: i64) {
        let mut last = None;
        for _ in 0..1_000 {
            let found = self.count(sql).await;
            if found == expected {
                return;
            }
            last = Some(found);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{sql} is {last:?}, not {expected}, after 20 seconds");
    }

    /// The invariants of the books that hold at any time (settlement-engine reference 2b).
    pub async fn check_books(&self) {
        let violations: [(&str, &'static str); 6] = [
            (
                "I1: posted more than once",
                "select count(*) from (select settlement_id from ledger_entry where subject = 'payment'
                 group by settlement_id having count(*) filter (where kind = 'post')
                 - count(*) filter (where kind = 'reverse') not in (0, 1)) as wrong",
            ),
            (
                "I1: posted without standing evidence, or the other way round",
                "select count(*) from settlement where (status in ('included', 'safe', 'finalized'))
                 <> (select count(*) filter (where kind = 'post') - count(*) filter (where kind = 'reverse') = 1
                     from ledger_entry where subject = 'payment'
                     and ledger_entry.settlement_id = settlement.settlement_id)",
            ),
            (
                "I2: evidence and settlement disagree",
                "select count(*) from settlement where (status in ('included', 'safe', 'finalized'))
                 <> exists (select from evidence where orphaned_at is null
                     and evidence.settlement_id = settlement.settlement_id
                     and evidence.transaction_hash = settlement.transaction_hash
                     and evidence.block_hash = settlement.block_hash)",
            ),
            (
                "I4: account nonces have gaps",
                "select count(*) from (select wallet_id, max(account_nonce) - min(account_nonce) + 1 as span,
                 count(*) as n, max(account_nonce) as last from transaction group by wallet_id) as used
                 join wallet using (wallet_id) where span <> n or last + 1 <> next_account_nonce",
            ),
            (
                "I3: a transaction without stored bytes",
                "select count(*) from transaction where not exists (select from attempt
                 where attempt.transaction_id = transaction.transaction_id)",
            ),
            (
                "the last event is not the status",
                "select count(*) from settlement where status <> (select status_to from event
                 where event.settlement_id = settlement.settlement_id order by event_id desc limit 1)",
            ),
        ];
        for (what, sql) in violations {
            assert_eq!(self.count(sql).await, 0, "{what}");
        }
        self.check_caps().await;
    }

    /// I3: every transaction that the proxies saw is stored in the books with its bytes, and was
    /// when it arrived.
    pub async fn check_sent(&self, proxies: &[&Proxy]) {
        for sent in proxies.iter().flat_map(|proxy| proxy.log()) {
            let raw: Option<Vec<u8>> =
                sqlx::query_scalar("select raw from attempt where transaction_hash = $1")
                    .bind(sent.hash.to_vec())
                    .fetch_optional(&self.books)
                    .await
                    .unwrap();
            let raw = raw.map(alloy::hex::encode_prefixed);
            assert_eq!(raw.as_ref(), Some(&sent.raw), "I3: the books do not hold {sent:?}");
            assert_ne!(sent.was_stored, Some(false), "I3: sent before it was stored: {sent:?}");
        }
    }

    /// Stops chain and database in order.
    pub async fn stop(self) {
        self.books.close().await;
        self.services.stop().await.unwrap();
        let _ = std::fs::remove_dir_all(&self.state_dir);
    }
}

/// Now, in Unix seconds.
#[allow(clippy::disallowed_methods, reason = "tests read the clock that buyers read")]
pub fn now() -> UnixTime {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime::from_seconds(since_epoch.unwrap().as_secs())
}
