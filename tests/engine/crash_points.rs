//! The process aborts between any two steps, and another finishes everything: each payment is paid
//! once, each success is told once, and no account nonce is lost.
//!
//! Every label of `src/faults.rs` is reached at its first, second and fifth hit of one process. The
//! labels of `accept`, `preflight`, `sign`, `claim`, `send`, `note` and `respond` are hit once for each
//! payment that travels alone, those of `block` once for each block of a chain that mines every
//! transaction at once, those of `unwind` by as many reorganizations, those of `bump` by as many rises
//! of the base fee, and those of `lease` at the start and by taking the leases away.

#![cfg(feature = "fault-injection")]

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    settle_in_background,
    support::{LEASE_MS, N_TOGETHER_MAX, Proxy, RPC_URL, Service, World},
};

const CRASH_AT: &str = "QUITTANCE_CRASH_AT";
const HITS: [u32; 3] = [1, 2, 5];
const SIGABRT: i32 = 6;
/// How many payments a process is given that dies of one of them.
const N_PAYMENTS: usize = 6;
const UNSETTLED: &str = "select count(*) from settlement where status in ('claimed', 'submitted')";
const OPEN: &str = "select count(*) from transaction where status = 'open'";
/// Attempts that are not their transaction's first.
const REPLACED: &str = "select count(*) from attempt where sequence > 0";
const UNNOTED: &str = "select count(*) from attempt where sent_at is null";

/// What brings a process to a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// Payments, as they come.
    Payments,
    /// Payments that waited, so that the chain is asked about them again.
    OldPayments,
    /// A payment, while the base fee rises above every offer.
    RisingFees,
    /// A payment, whose block is replaced again and again.
    Reorgs,
    /// A payment, while the leases are taken away.
    Theft,
}

/// One world through many crashes.
struct Scene {
    world: World,
    proxy: Proxy,
    payments: Vec<Value>,
    /// How often the success of each was told.
    n_told: Vec<usize>,
    /// How many processes died between noting that a success was told and telling it.
    n_died_telling: usize,
}

impl Scene {
    fn new(world: World) -> Self {
        let proxy = world.proxy();
        Self { world, proxy, payments: Vec::new(), n_told: Vec::new(), n_died_telling: 0 }
    }

    fn settings<'a>(&'a self, further: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let common =
            [(LEASE_MS, "1000"), (N_TOGETHER_MAX, "1"), (RPC_URL, self.proxy.url.as_str())];
        common.into_iter().chain(further.iter().copied()).collect()
    }

    /// Brings one process to `label` for each number of hits, and lets the next finish its work.
    async fn crash_at(&mut self, label: &str, hits: &[u32], load: Load) {
        for n_hits in hits {
            let at = format!("{label}:{n_hits}");
            println!("{at}");
            let crashing = Service::spawn(&self.world, &self.settings(&[(CRASH_AT, &at)])).await;
            let asked = self.ask(&crashing, load).await;
            let status = self.provoke(crashing, load).await;
            assert_eq!(status.signal(), Some(SIGABRT), "{at}: {status}");
            self.check_remains(label).await;
            self.recover(asked).await;
        }
    }

    /// Asks `service` to settle what `load` needs.
    async fn ask(
        &mut self,
        service: &Service,
        load: Load,
    ) -> Vec<(usize, JoinHandle<Option<Value>>)> {
        let n = match load {
            Load::Payments | Load::OldPayments => N_PAYMENTS,
            Load::RisingFees | Load::Reorgs | Load::Theft => 1,
        };
        if load == Load::OldPayments {
            self.world.until("select count(*) from wallet", 1).await;
            self.world.pause_wallets().await;
        }
        let first = self.payments.len();
        for index in first..first + n {
            let amount = 1_000 + u64::try_from(index).unwrap();
            self.payments.push(self.world.payment(index % 8, amount));
            self.n_told.push(0);
        }
        let asked = (first..first + n)
            .map(|index| (index, settle_in_background(service, &self.payments[index])))
            .collect();
        match load {
            Load::Payments => (),
            Load::Reorgs | Load::Theft => {
                let n_payments = i64::try_from(self.payments.len()).unwrap();
                self.world.until("select count(*) from settlement", n_payments).await;
            }
            Load::OldPayments => {
                let n = i64::try_from(n).unwrap();
                self.world.until(UNSETTLED, n).await;
                // Old enough to be looked into again before they are signed for.
                sqlx::query("update settlement set created_at = created_at - interval '5 seconds'")
                    .execute(&self.world.books)
                    .await
                    .unwrap();
                self.world.resume_wallets().await;
            }
            Load::RisingFees => self.world.node.until_pending(1).await,
        }
        asked
    }

    /// Goes on until the process ends.
    async fn provoke(&self, crashing: Service, load: Load) -> ExitStatus {
        let ended = crashing.ended();
        tokio::pin!(ended);
        loop {
            let again = async {
                match load {
                    Load::Payments | Load::OldPayments => std::future::pending().await,
                    Load::RisingFees => self.raise_base_fee().await,
                    Load::Reorgs => self.replace_newest_block().await,
                    Load::Theft => self.take_leases_away().await,
                }
            };
            tokio::select! {
                status = &mut ended => return status,
                () = again => (),
            }
        }
    }

    /// A block whose base fee is above all that was offered.
    async fn raise_base_fee(&self) {
        let highest = "select max(fee_wei_max)::bigint from attempt
            join transaction using (transaction_id) where status = 'open'";
        let offered = self.world.count(highest).await;
        let above = u64::try_from(offered).unwrap() / 10 * 11;
        self.world.node.next_base_fee(above).await;
        self.world.node.mine(1).await;
        for _ in 0..150 {
            if self.world.count(highest).await > offered && self.world.node.n_pending().await > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Once the payment is in the newest block, takes that block away.
    async fn replace_newest_block(&self) {
        self.settled().await;
        self.world.node.reorg(1, &[]).await;
        let n_reversed =
            "select count(*) from ledger_entry where subject = 'payment' and kind = 'reverse'";
        let before = self.world.count(n_reversed).await;
        for _ in 0..150 {
            if self.world.count(n_reversed).await > before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn take_leases_away(&self) {
        self.settled().await;
        let theft =
            "update lease set epoch = epoch + 1, holder = gen_random_uuid(), held_until = now()
            where held_until > now()";
        sqlx::query(theft).execute(&self.world.books).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }

    /// Waits, not for ever, until everything is settled: the process may be dead.
    async fn settled(&self) {
        for _ in 0..150 {
            if self.world.count(UNSETTLED).await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the dead process left behind.
    async fn check_remains(&mut self, label: &str) {
        let wallet = self.world.services.chain.wallet.address;
        let next = "select next_account_nonce from wallet order by wallet_id limit 1";
        let on_chain = self.world.node.account_nonce(wallet).await;
        let n_unsent = self.world.count(next).await - i64::try_from(on_chain).unwrap();
        match label {
            // Scenario 2: nothing was stored.
            "preflight.after" | "sign.after" | "claim.before_commit" => {
                assert_eq!((self.world.count(UNNOTED).await, n_unsent), (0, 0), "{label}");
            }
            // Scenario 3: stored, and known to nobody.
            "claim.after_commit" | "send.before" => {
                assert_eq!((self.world.count(UNNOTED).await, n_unsent), (1, 1), "{label}");
            }
            // Scenario 4: the node has it, and we do not know. What is sent again goes out together, so
            // that the answer to another may be unknown as well.
            "send.after" | "note.before" => {
                assert!(self.world.count(UNNOTED).await >= 1, "{label}");
                assert_eq!(n_unsent, 0, "{label}");
            }
            "accept.after_commit" => assert!(self.world.count(UNSETTLED).await > 0),
            "respond.before" => self.n_died_telling += 1,
            _ => (),
        }
        self.world.check_books().await;
    }

    /// Another process finishes what was begun; callers come back with what they were not told.
    async fn recover(&mut self, asked: Vec<(usize, JoinHandle<Option<Value>>)>) {
        let n_asked = asked.len();
        let next = Service::spawn(&self.world, &self.settings(&[])).await;
        for (index, asked) in asked {
            self.hear(index, asked.await.unwrap());
        }
        // What was not claimed is settled now; what was is a duplicate until its right lapses.
        let first = self.payments.len() - n_asked;
        let retried: Vec<_> = self.payments[first..]
            .iter()
            .map(|payment| settle_in_background(&next, payment))
            .collect();
        let n_payments = i64::try_from(self.payments.len()).unwrap();
        self.world.until("select count(*) from settlement", n_payments).await;
        self.until_settled(UNSETTLED).await;
        self.until_settled(OPEN).await;
        for (index, retried) in (first..).zip(retried) {
            self.hear(index, retried.await.unwrap());
        }
        self.world.check_books().await;
        next.stop().await;
    }

    fn hear(&mut self, index: usize, answer: Option<Value>) {
        let Some(answer) = answer else { return };
        if answer["success"] == true {
            self.n_told[index] += 1;
        } else {
            assert_eq!(answer["errorReason"], "duplicate_settlement", "{answer}");
        }
    }

    /// Waits until nothing of that kind is left, with blocks where the chain makes none by itself.
    async fn until_settled(&self, sql: &'static str) {
        let makes_blocks = self.world.node.call("anvil_getAutomine", json!([])).await;
        for _ in 0..200 {
            if self.world.count(sql).await == 0 {
                return;
            }
            if makes_blocks == json!(false) {
                self.world.node.next_base_fee(5_000_000).await;
                self.world.node.mine(1).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{sql} is {}", self.world.count(sql).await);
    }

    /// Every caller that was not answered comes back and is told, unless its answer died on the way:
    /// success is handed out once (ADR 0001).
    async fn end(mut self) {
        let world = &self.world;
        world.until("select count(*) from settlement where answer_held_until > now()", 0).await;
        let last = world.service_with(&self.settings(&[])).await;
        let mut n_lost = 0;
        for (payment, n_told) in self.payments.iter().zip(&mut self.n_told) {
            if *n_told == 0 {
                let answer = last.settle(payment).await;
                if answer["success"] == true {
                    *n_told += 1;
                } else {
                    assert_eq!(answer["errorReason"], "duplicate_settlement", "{answer}");
                    n_lost += 1;
                }
            }
        }
        println!("{n_lost} of {} answers died with their process", self.payments.len());
        assert!(self.n_told.iter().all(|n_told| *n_told <= 1), "{:?}", self.n_told);
        assert!(n_lost >= self.n_died_telling, "{:?}", self.n_told);
        assert_eq!(
            world.count("select count(*) from settlement where answered_at is null").await,
            0
        );
        world.check_paid_once(&self.payments).await;
        world.check_sent(&[&self.proxy]).await;
        world.check_at_rest().await;
        world.check_books().await;
        last.stop().await;
        self.world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_around_the_promise_or_its_answer_loses_no_payment() {
    let mut scene = Scene::new(World::automine().await);
    for label in ["accept.before_commit", "accept.after_commit", "respond.before"] {
        scene.crash_at(label, &HITS, Load::Payments).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_a_transaction_is_stored_leaves_nothing_of_it() {
    let mut scene = Scene::new(World::automine().await);
    scene.crash_at("preflight.after", &HITS, Load::OldPayments).await;
    for label in ["sign.after", "claim.before_commit"] {
        scene.crash_at(label, &HITS, Load::Payments).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_a_stored_transaction_is_sent_sends_the_same_bytes() {
    let mut scene = Scene::new(World::automine().await);
    for label in ["claim.after_commit", "send.before"] {
        scene.crash_at(label, &HITS, Load::Payments).await;
    }
    assert_eq!(scene.world.count(REPLACED).await, 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_a_transaction_is_sent_sends_no_other_bytes() {
    let mut scene = Scene::new(World::automine().await);
    for label in ["send.after", "note.before"] {
        scene.crash_at(label, &HITS, Load::Payments).await;
    }
    assert_eq!(scene.world.count(REPLACED).await, 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_around_a_better_offer_pays_once() {
    let mut scene = Scene::new(World::stepped().await);
    for label in ["bump.after_commit", "bump.after_send"] {
        scene.crash_at(label, &HITS, Load::RisingFees).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_around_a_block_or_its_loss_posts_once() {
    let mut scene = Scene::new(World::automine().await);
    for label in ["block.before_commit", "block.after_commit"] {
        scene.crash_at(label, &HITS, Load::Payments).await;
    }
    for label in ["unwind.before_commit", "unwind.after_commit"] {
        scene.crash_at(label, &HITS, Load::Reorgs).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_with_a_lease_in_hand_or_just_lost_stops_nobody() {
    let mut scene = Scene::new(World::automine().await);
    // The follower's and the wallet's, before the process is of use to anybody.
    for at in ["lease.acquired:1", "lease.acquired:2"] {
        println!("{at}");
        let settings = scene.settings(&[(CRASH_AT, at)]);
        let status = Service::end_of_start(&scene.world, &settings).await;
        assert_eq!(status.signal(), Some(SIGABRT), "{at}: {status}");
    }
    scene.crash_at("lease.acquired", &[5], Load::Theft).await;
    scene.crash_at("lease.lost", &HITS, Load::Theft).await;
    scene.end().await;
}
