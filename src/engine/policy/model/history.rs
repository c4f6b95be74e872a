//! What can happen, how likely it is, and how a history of it is run.

use std::{cell::RefCell, rc::Rc};

use alloy::primitives::Address;
use proptest::prelude::*;

use crate::domain::{Authorization, UnixTime};

use super::{
    books::Owned,
    chain::{BLOCK_SECONDS, Mood, Slot},
    invariants::{check, check_deadlines, check_sums, is_quiet},
    replica::{Progress, Replica},
    token::Call,
    world::{Loss, N_WALLETS, Shared, World, payer},
};

/// How many processes there are.
const N_REPLICAS: usize = 2;
/// How many blocks may pass until nothing is left to do: an expiry, a minute, and a final block.
const N_CALM_BLOCKS_MAX: usize = 120;
/// How many blocks are read between two new ones.
const N_READS_MAX: usize = 8;
/// How many things one step does at most.
const N_POLLS_MAX: usize = 2_000;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// A buyer's payment is verified some blocks ago and claimed now.
    Accept { lifetime: u64, n_blocks_ago: usize, is_spoiler: bool },
    /// A loop of a process does so many things.
    Go { replica: usize, owned: Owned, n: usize },
    /// A block with room for so many transactions.
    Mine { n_transactions_max: usize },
    /// The newest blocks are replaced.
    Reorganize { depth: usize, n_new: usize, keeps: u64, forgets: bool },
    /// The pool forgets one of its transactions.
    Drop(usize),
    /// A process dies and starts anew.
    Crash { replica: usize, is_noticed: bool },
    /// The time of a lease is over; its owner may not know.
    EndLease(Owned),
    /// The node answers the next sends so.
    Send(Mood),
    /// The next commit is lost, or its acknowledgement.
    Lose(Loss),
    /// Somebody else submits a payment's authorization.
    FrontRun(u8),
    /// A payer cancels an authorization.
    Cancel(u8),
    /// A payer spends an authorization's nonce on somebody else.
    Spend(u8),
    /// A payer becomes poor, or rich again.
    SetPoor(u8, bool),
    /// Somebody else sends from the last wallet.
    Steal,
    /// Time passes without blocks.
    Wait(u64),
    /// What gas costs from now on.
    Fees { base_fee_wei: u128, priority_fee_wei: u128 },
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    let owned = prop_oneof![
        3 => Just(Owned::Follower),
        3 => Just(Owned::Wallet(0)),
        1 => Just(Owned::Wallet(1)),
    ];
    let number = 0..8_u8;
    let mood = prop_oneof![
        Just(Mood::TakesAndTimesOut),
        Just(Mood::TakesAndRefuses),
        Just(Mood::TimesOut),
        Just(Mood::Forgets),
    ];
    let base_fee = prop_oneof![Just(10_000_000), Just(70_000_000), Just(2_000_000_000)];
    let priority_fee = prop_oneof![Just(1_000_000), Just(30_000_000)];
    prop_oneof![
        8 => (8..90_u64, 0..2_usize, prop::bool::weighted(0.15)).prop_map(
            |(lifetime, n_blocks_ago, is_spoiler)|
                Operation::Accept { lifetime, n_blocks_ago, is_spoiler }
        ),
        30 => (0..N_REPLICAS, owned.clone(), 1..20_usize)
            .prop_map(|(replica, owned, n)| Operation::Go { replica, owned, n }),
        10 => (0..5_usize).prop_map(|n_transactions_max| Operation::Mine { n_transactions_max }),
        4 => (1..=5_usize, any::<u64>(), any::<bool>(), 0..4_usize).prop_map(
            |(depth, keeps, forgets, more)| Operation::Reorganize {
                // Sometimes one block less than before, or one or two more.
                depth, n_new: (depth + more).saturating_sub(1), keeps, forgets,
            }
        ),
        2 => (0..4_usize).prop_map(Operation::Drop),
        2 => (0..N_REPLICAS, any::<bool>())
            .prop_map(|(replica, is_noticed)| Operation::Crash { replica, is_noticed }),
        3 => owned.prop_map(Operation::EndLease),
        3 => mood.prop_map(Operation::Send),
        2 => prop_oneof![Just(Loss::Commit), Just(Loss::Acknowledgement)].prop_map(Operation::Lose),
        3 => number.clone().prop_map(Operation::FrontRun),
        2 => number.clone().prop_map(Operation::Cancel),
        2 => number.clone().prop_map(Operation::Spend),
        1 => (number, any::<bool>()).prop_map(|(n, is_poor)| Operation::SetPoor(n, is_poor)),
        1 => Just(Operation::Steal),
        2 => (2..40_u64).prop_map(Operation::Wait),
        2 => (base_fee, priority_fee).prop_map(
            |(base_fee_wei, priority_fee_wei)| Operation::Fees { base_fee_wei, priority_fee_wei }
        ),
    ]
}

/// Runs a history and then lets everything come to rest. The first broken promise ends it.
pub(super) fn run(operations: &[Operation]) -> Result<(), String> {
    let mut run = Run {
        world: Rc::new(RefCell::new(World::new())),
        replicas: (0..N_REPLICAS).map(Replica::new).collect(),
        n_started: N_REPLICAS,
    };
    for operation in operations {
        run.perform(operation);
        check(&run.world.borrow())?;
    }
    run.rest()
}

struct Run {
    world: Shared,
    replicas: Vec<Replica>,
    n_started: usize,
}

impl Run {
    fn perform(&mut self, operation: &Operation) {
        if let Operation::Go { replica, owned, n } = *operation {
            for _ in 0..n {
                self.replicas[replica].poll(&self.world, owned);
            }
            return;
        }
        let mut world = self.world.borrow_mut();
        match *operation {
            Operation::Go { .. } => (),
            Operation::Accept { lifetime, n_blocks_ago, is_spoiler } => {
                world.accept(lifetime, n_blocks_ago, is_spoiler);
            }
            Operation::Mine { n_transactions_max } => mine(&mut world, n_transactions_max),
            Operation::Reorganize { depth, n_new, keeps, forgets } => {
                world.chain.reorganize(depth, n_new, keeps, forgets);
            }
            Operation::Drop(index) => {
                if index < world.chain.pool.len() {
                    world.chain.pool.remove(index);
                }
            }
            Operation::Crash { replica, is_noticed } => {
                self.replicas[replica].crash(self.n_started);
                self.n_started += 1;
                if is_noticed {
                    world.books.leases.values_mut().for_each(|row| row.has_ended = true);
                }
            }
            Operation::EndLease(owned) => {
                if let Some(row) = world.books.leases.get_mut(&owned) {
                    row.has_ended = true;
                }
            }
            Operation::Send(mood) => world.moods.push_back(mood),
            Operation::Lose(loss) => world.loss = Some(loss),
            Operation::FrontRun(n) => {
                if let Some(authorization) = world.authorization(n) {
                    world.outsider_calls(Call::Transfer(authorization));
                }
            }
            Operation::Cancel(n) => {
                if let Some(authorization) = world.authorization(n) {
                    world.outsider_calls(Call::Cancel(authorization.payer, authorization.nonce));
                }
            }
            Operation::Spend(n) => {
                if let Some(authorization) = world.authorization(n) {
                    let payee = Address::repeat_byte(0xdd);
                    world.outsider_calls(Call::Transfer(Authorization { payee, ..authorization }));
                }
            }
            Operation::SetPoor(n, is_poor) => {
                world.outsider_calls(Call::SetPoor(payer(n).address(), is_poor));
            }
            Operation::Steal => world.steal(N_WALLETS - 1),
            Operation::Wait(seconds) => world.now += seconds,
            Operation::Fees { base_fee_wei, priority_fee_wei } => {
                world.chain.base_fee_wei = base_fee_wei;
                world.chain.priority_fee_wei = priority_fee_wei;
            }
        }
    }

    /// The faults cease and blocks come, until nothing is left to do.
    fn rest(&mut self) -> Result<(), String> {
        let calm_since = self.calm_down();
        for _ in 0..N_CALM_BLOCKS_MAX {
            for wallet in 0..N_WALLETS {
                self.finish_step(Owned::Wallet(wallet))?;
            }
            for _ in 0..N_READS_MAX {
                if self.is_read() {
                    break;
                }
                self.finish_step(Owned::Follower)?;
            }
            // Once more, to promote what lies deep.
            self.finish_step(Owned::Follower)?;
            let world = &mut self.world.borrow_mut();
            check_deadlines(world, calm_since)?;
            if is_quiet(world) {
                return check_sums(world);
            }
            mine(world, 100);
        }
        let world = self.world.borrow();
        let statuses: Vec<_> =
            world.books.settlements.values().map(|row| row.settlement.status).collect();
        Err(format!("I8: never at rest: {statuses:?}, {:?}", world.books.transactions))
    }

    /// Both processes finish what they do with it; one of them owns it.
    fn finish_step(&mut self, owned: Owned) -> Result<(), String> {
        for replica in &mut self.replicas {
            for _ in 0..N_POLLS_MAX {
                if replica.poll(&self.world, owned) != Progress::InTheMiddle {
                    break;
                }
            }
            check(&self.world.borrow())?;
        }
        Ok(())
    }

    fn is_read(&self) -> bool {
        let world = self.world.borrow();
        world.books.head.is_some_and(|tip| tip.hash == world.chain.head().block.hash)
    }

    fn calm_down(&mut self) -> u64 {
        let mut world = self.world.borrow_mut();
        world.moods.clear();
        world.loss = None;
        (world.chain.base_fee_wei, world.chain.priority_fee_wei) = (10_000_000, 1_000_000);
        world.books.leases.values_mut().for_each(|row| row.has_ended = true);
        world.now = world.now.max(world.chain.head().block.timestamp.seconds());
        world.now
    }
}

fn mine(world: &mut World, n_transactions_max: usize) {
    world.now += BLOCK_SECONDS;
    let time = UnixTime::from_seconds(world.now);
    world.chain.mine(Slot { time, n_transactions_max });
}
