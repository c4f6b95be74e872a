//! What goes wrong when. Pure: a seed and a length in, a list of deeds out.

use std::time::Duration;

use crate::{
    dice::Dice,
    support::{Fault, Refusal, Trouble},
};

pub(crate) const N_REPLICAS: usize = 3;
/// The lease that the replicas run with.
pub(crate) const LEASE_MS: u64 = 2_000;
/// The deepest reorganization. The chain's safe head is as far behind, so that what is safe stays.
pub(crate) const DEPTH_MAX: u64 = 5;

/// Something done to the system, at a time after the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) at: Duration,
    pub(crate) deed: Deed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The replica's way to the chain misbehaves.
    Misbehave { replica: usize, method: &'static str, fault: Fault },
    /// And behaves again.
    Heal { replica: usize },
    /// SIGKILL.
    Kill { replica: usize },
    /// Another process in its place.
    Start { replica: usize },
    /// SIGSTOP.
    Pause { replica: usize },
    /// SIGCONT.
    Resume { replica: usize },
    /// Without a word to anybody.
    RestartPostgres,
    /// Replaces the newest blocks. What of their transactions is not kept is forgotten.
    Reorganize { depth: u64, kept_per_cent: u64, seed: u64 },
    /// The pool loses transactions of ours.
    Forget { per_cent: u64, seed: u64 },
    /// The next block asks this much per gas.
    BaseFee { wei: u64 },
}

/// Something that deeds are done to, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Proxy(usize),
    Process(usize),
    Postgres,
    Chain,
}

impl Lane {
    /// How many deeds belong together: what breaks it, and what makes it whole.
    pub(crate) const fn n_together(self) -> usize {
        match self {
            Self::Proxy(_) | Self::Process(_) => 2,
            Self::Postgres | Self::Chain => 1,
        }
    }
}

impl Deed {
    /// What it is done to: deeds to different things do not wait for each other.
    pub(crate) const fn lane(&self) -> Lane {
        match *self {
            Self::Misbehave { replica, .. } | Self::Heal { replica } => Lane::Proxy(replica),
            Self::Kill { replica }
            | Self::Start { replica }
            | Self::Pause { replica }
            | Self::Resume { replica } => Lane::Process(replica),
            Self::RestartPostgres => Lane::Postgres,
            Self::Reorganize { .. } | Self::Forget { .. } | Self::BaseFee { .. } => Lane::Chain,
        }
    }

    /// For counting.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Misbehave { .. } => "proxy faults",
            Self::Heal { .. } => "proxies healed",
            Self::Kill { .. } => "kill -9",
            Self::Start { .. } => "replicas started again",
            Self::Pause { .. } => "SIGSTOP",
            Self::Resume { .. } => "SIGCONT",
            Self::RestartPostgres => "Postgres restarts",
            Self::Reorganize { .. } => "reorganizations",
            Self::Forget { .. } => "pool drops",
            Self::BaseFee { .. } => "base fee jumps",
        }
    }
}

/// Every deed of a run, in order. Whatever is broken is whole again soon after `length`.
pub(crate) fn schedule(seed: u64, length: Duration) -> Vec<Act> {
    let length_ms = u64::try_from(length.as_millis()).unwrap();
    let mut acts = Vec::new();
    for (part, replica) in (1..).zip(0..N_REPLICAS) {
        of_process(&mut Dice::of(seed, part), replica, length_ms, &mut acts);
        of_proxy(&mut Dice::of(seed, part + 100), replica, length_ms, &mut acts);
    }
    let chain = |part: u64, gap_ms: (u64, u64), deed: fn(&mut Dice) -> Deed| {
        let mut dice = Dice::of(seed, part);
        let times = times(&mut dice, gap_ms, length_ms);
        times.into_iter().map(|at_ms| act(at_ms, deed(&mut dice))).collect::<Vec<_>>()
    };
    acts.extend(chain(200, (9_000, 18_000), |_| Deed::RestartPostgres));
    acts.extend(chain(201, (4_000, 9_000), |dice| Deed::Reorganize {
        depth: dice.between(1, DEPTH_MAX),
        kept_per_cent: dice.one_of(&[0, 30, 60, 100]),
        seed: dice.roll(),
    }));
    acts.extend(chain(202, (3_000, 8_000), |dice| Deed::Forget {
        per_cent: dice.one_of(&[20, 50, 100]),
        seed: dice.roll(),
    }));
    acts.extend(chain(203, (8_000, 16_000), |dice| Deed::BaseFee {
        wei: dice.between(5_000_000, 150_000_000),
    }));
    acts.sort_by_key(|act| act.at);
    acts
}

/// One replica's process: killed or stopped, never both.
fn of_process(dice: &mut Dice, replica: usize, length_ms: u64, acts: &mut Vec<Act>) {
    let mut at_ms = dice.between(1_000, 6_000);
    while at_ms < length_ms {
        let (begin, end, lasting_ms) = if dice.happens(50) {
            (Deed::Kill { replica }, Deed::Start { replica }, dice.between(50, 2_500))
        } else {
            let lasting_ms = dice.between(LEASE_MS / 5, LEASE_MS * 3 / 2);
            (Deed::Pause { replica }, Deed::Resume { replica }, lasting_ms)
        };
        acts.push(act(at_ms, begin));
        acts.push(act(at_ms + lasting_ms, end));
        at_ms += lasting_ms + dice.between(3_000, 12_000);
    }
}

/// One replica's way to the chain: one fault at a time.
fn of_proxy(dice: &mut Dice, replica: usize, length_ms: u64, acts: &mut Vec<Act>) {
    let mut at_ms = dice.between(500, 3_000);
    while at_ms < length_ms {
        let (method, fault) = if dice.happens(60) {
            ("eth_sendRawTransaction", of_sending(dice))
        } else {
            of_reading(dice)
        };
        let lasting_ms = dice.between(200, 2_500);
        acts.push(act(at_ms, Deed::Misbehave { replica, method, fault }));
        acts.push(act(at_ms + lasting_ms, Deed::Heal { replica }));
        at_ms += lasting_ms + dice.between(500, 4_000);
    }
}

fn of_sending(dice: &mut Dice) -> Fault {
    let delay = Fault::Delay(Duration::from_millis(dice.between(50, 900)));
    dice.one_of(&[
        delay,
        Fault::DropBefore,
        Fault::DropAfterForward,
        Fault::Duplicate(3),
        Fault::BlackHole,
        Fault::ErrorAfterForward(Trouble::BadGateway),
        Fault::ErrorAfterForward(Trouble::TooManyRequests),
        Fault::ErrorAfterForward(Trouble::Garbage),
        Fault::ErrorAfterForward(Trouble::Refused(Refusal::PoolFull)),
        Fault::ErrorAfterForward(Trouble::Refused(Refusal::NonceTooLow)),
        Fault::Refuse(Refusal::AlreadyKnown),
        Fault::Refuse(Refusal::PoolFull),
        Fault::Refuse(Refusal::Underpriced),
        Fault::Refuse(Refusal::ReplacementUnderpriced),
        Fault::Refuse(Refusal::NonceTooLow),
    ])
}

fn of_reading(dice: &mut Dice) -> (&'static str, Fault) {
    let delay = Fault::Delay(Duration::from_millis(dice.between(50, 400)));
    let stale = Fault::Stale(dice.between(1, 3));
    dice.one_of(&[
        ("*", delay),
        ("*", stale),
        ("*", Fault::DropBefore),
        ("*", Fault::RateLimited),
        ("*", Fault::WebPage),
        ("*", Fault::BlackHole),
        ("eth_getTransactionReceipt", Fault::Answer("null")),
        ("eth_getBlockByNumber", Fault::DropBefore),
        ("eth_call", Fault::RateLimited),
    ])
}

fn times(dice: &mut Dice, gap_ms: (u64, u64), length_ms: u64) -> Vec<u64> {
    let mut times = Vec::new();
    let mut at_ms = dice.between(gap_ms.0, gap_ms.1);
    while at_ms < length_ms {
        times.push(at_ms);
        at_ms += dice.between(gap_ms.0, gap_ms.1);
    }
    times
}

const fn act(at_ms: u64, deed: Deed) -> Act {
    Act { at: Duration::from_millis(at_ms), deed }
}

#[test]
fn equal_seeds_give_equal_schedules_in_which_everything_happens() {
    let length = Duration::from_secs(60);
    assert_eq!(schedule(7, length), schedule(7, length));
    assert_ne!(schedule(7, length), schedule(8, length));
    let acts = schedule(7, length);
    let names: std::collections::BTreeSet<_> = acts.iter().map(|act| act.deed.name()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert!(acts.is_sorted_by_key(|act| act.at));
}

#[test]
fn what_is_broken_is_made_whole() {
    for seed in 0..50 {
        let mut broken = std::collections::BTreeSet::new();
        for act in schedule(seed, Duration::from_secs(30)) {
            let is_right = match act.deed {
                Deed::Misbehave { replica, .. } => broken.insert(("proxy", replica)),
                Deed::Heal { replica } => broken.remove(&("proxy", replica)),
                Deed::Kill { replica } | Deed::Pause { replica } => {
                    broken.insert(("process", replica))
                }
                Deed::Start { replica } | Deed::Resume { replica } => {
                    broken.remove(&("process", replica))
                }
                Deed::RestartPostgres
                | Deed::Reorganize { .. }
                | Deed::Forget { .. }
                | Deed::BaseFee { .. } => true,
            };
            assert!(is_right, "seed {seed}: {act:?}");
        }
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
    }
}
