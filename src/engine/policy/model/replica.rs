//! A process: the loops that it runs, one thing at a time, and what it forgets when it dies.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{
    books::{Lease, Owned},
    follower_loop::follow,
    wallet_loop::{Desk, dispatch},
    world::{Shared, Trouble},
};

/// Where a loop sits while it does nothing.
#[derive(Debug)]
enum Seat {
    Wallet(Desk),
    Follower(Lease),
}

type Step = Pin<Box<dyn Future<Output = (Seat, Result<(), Trouble>)>>>;

enum Loop {
    Idle(Seat),
    /// In the middle of a step.
    Busy(Step),
}

impl fmt::Debug for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle(_) => "idle",
            Self::Busy(_) => "busy",
        })
    }
}

/// How far a loop came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Another process owns what it wants to work at.
    NotOwned,
    /// It is about to do the next thing.
    InTheMiddle,
    /// Its step is over.
    Done,
}

#[derive(Debug)]
pub(super) struct Replica {
    /// Another with every start.
    id: usize,
    loops: BTreeMap<Owned, Loop>,
}

impl Replica {
    pub(super) const fn new(id: usize) -> Self {
        Self { id, loops: BTreeMap::new() }
    }

    /// The process dies and starts anew. Its leases end when their time is over.
    pub(super) fn crash(&mut self, next_id: usize) {
        *self = Self::new(next_id);
    }

    /// Does one thing with the world outside, beginning a step or going on with one.
    pub(super) fn poll(&mut self, world: &Shared, owned: Owned) -> Progress {
        let mut step = match self.loops.remove(&owned) {
            Some(Loop::Busy(step)) => step,
            Some(Loop::Idle(seat)) => begin(world, seat),
            None => {
                let lease = world.borrow_mut().books.acquire_lease(owned, self.id);
                let Some(lease) = lease else { return Progress::NotOwned };
                begin(
                    world,
                    match owned {
                        Owned::Wallet(wallet) => Seat::Wallet(Desk::new(wallet, lease)),
                        Owned::Follower => Seat::Follower(lease),
                    },
                )
            }
        };
        match step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                self.loops.insert(owned, Loop::Busy(step));
                Progress::InTheMiddle
            }
            Poll::Ready((_, Err(Trouble::LeaseLost))) => Progress::Done,
            Poll::Ready((seat, _)) => {
                self.loops.insert(owned, Loop::Idle(seat));
                Progress::Done
            }
        }
    }
}

fn begin(world: &Shared, seat: Seat) -> Step {
    let world = Shared::clone(world);
    Box::pin(async move {
        match seat {
            Seat::Wallet(mut desk) => {
                let outcome = dispatch(&world, &mut desk).await;
                (Seat::Wallet(desk), outcome)
            }
            Seat::Follower(lease) => (Seat::Follower(lease), follow(&world, lease).await),
        }
    })
}
