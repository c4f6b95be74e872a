//! Which of a chain's endpoints are fit to be asked. Pure: it is told what happened, and when.
//!
//! Nothing here forgets an endpoint for good: where none is fit, all of them are tried.

use std::time::Duration;

use tokio::time::Instant;

/// How many blocks an endpoint may lag behind the best head that was seen. Load balancers differ by
/// one or two as a matter of course.
pub const LAG_BLOCKS_MAX: u64 = 3;
/// For how long it may lag by more.
const LAG_MAX: Duration = Duration::from_secs(5);
/// For how long a head counts as one that others lag behind.
const HEAD_REMEMBERED: Duration = Duration::from_secs(30);
/// For how long an endpoint that failed once is left alone; doubled by each failure that follows.
const ASIDE_MIN: Duration = Duration::from_secs(1);
/// For how long an endpoint is left alone at most.
const ASIDE_MAX: Duration = Duration::from_secs(30);
/// How long a chain id that was seen is believed. An endpoint may be turned to another chain.
const IDENTITY_BELIEVED: Duration = Duration::from_secs(60);

/// Whether an endpoint is fit, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// It is of the right chain, answers, and keeps up.
    Fit,
    /// Nobody asked for its chain id yet.
    Unidentified,
    /// Its newest block is behind those of others.
    Behind,
    /// Its newest block is older than it may be.
    Stale,
    /// It failed, and has not answered since.
    Failing,
    /// It is of another chain.
    OtherChain,
}

/// The newest block that an endpoint told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) is_stale: bool,
}

/// What is known of the endpoints, in the order of the settings.
#[derive(Debug)]
pub(super) struct Standings(Vec<Standing>);

#[derive(Debug, Default)]
struct Standing {
    identity: Option<Identity>,
    head: Option<(Head, Instant)>,
    lagging_since: Option<Instant>,
    is_behind: bool,
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone, Copy)]
struct Identity {
    is_right: bool,
    seen_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Trouble {
    n_failures: u32,
    aside_until: Instant,
}

impl Standings {
    pub(super) fn new(n_endpoints: usize) -> Self {
        Self((0..n_endpoints).map(|_| Standing::default()).collect())
    }

    /// Whom to ask, in this order: the fit ones, then those that only need to be identified. Where
    /// there are none of these, all, those that may know something first.
    pub(super) fn candidates(&self) -> Vec<usize> {
        let of = |wanted: &[Fitness]| -> Vec<usize> {
            (0..self.0.len()).filter(|index| wanted.contains(&self.fitness(*index))).collect()
        };
        let usable = [of(&[Fitness::Fit]), of(&[Fitness::Unidentified])].concat();
        if !usable.is_empty() {
            return usable;
        }
        let mut all: Vec<usize> = (0..self.0.len()).collect();
        // The sort keeps the order of the settings among equals.
        all.sort_by_key(|index| self.fitness(*index));
        all
    }

    pub(super) fn fitness(&self, index: usize) -> Fitness {
        let Some(standing) = self.0.get(index) else { return Fitness::Unidentified };
        match standing.identity {
            Some(identity) if !identity.is_right => Fitness::OtherChain,
            _ if standing.trouble.is_some() => Fitness::Failing,
            None => Fitness::Unidentified,
            Some(_) if standing.head.is_some_and(|(head, _)| head.is_stale) => Fitness::Stale,
            Some(_) if standing.is_behind => Fitness::Behind,
            Some(_) => Fitness::Fit,
        }
    }

    /// Whether the endpoint's chain id was seen, and right when it was seen last.
    pub(super) fn is_identified(&self, index: usize) -> bool {
        self.0.get(index).and_then(|s| s.identity).is_some_and(|identity| identity.is_right)
    }

    /// Whether the chain id should be asked for, again or at all.
    pub(super) fn wants_identity(&self, index: usize, now: Instant) -> bool {
        let identity = self.0.get(index).and_then(|standing| standing.identity);
        identity.is_none_or(|identity| now.duration_since(identity.seen_at) > IDENTITY_BELIEVED)
    }

    /// Whether an endpoint that failed should still be left alone.
    pub(super) fn is_aside(&self, index: usize, now: Instant) -> bool {
        let trouble = self.0.get(index).and_then(|standing| standing.trouble);
        trouble.is_some_and(|trouble| now < trouble.aside_until)
    }

    pub(super) fn note_identity(&mut self, index: usize, is_right: bool, now: Instant) {
        let Some(standing) = self.0.get_mut(index) else { return };
        standing.identity = Some(Identity { is_right, seen_at: now });
        standing.trouble = None;
        if !is_right {
            (standing.head, standing.lagging_since, standing.is_behind) = (None, None, false);
        }
    }

    /// The endpoint answered, were it only that a call cannot be run.
    pub(super) fn note_answer(&mut self, index: usize) {
        if let Some(standing) = self.0.get_mut(index) {
            standing.trouble = None;
        }
    }

    /// The endpoint did not answer.
    pub(super) fn note_failure(&mut self, index: usize, now: Instant) {
        let Some(standing) = self.0.get_mut(index) else { return };
        // Calls that were under way together fail together, and count once.
        if standing.trouble.is_some_and(|trouble| now < trouble.aside_until) {
            return;
        }
        let n_failures = standing.trouble.map_or(1, |trouble| trouble.n_failures.saturating_add(1));
        let doubled = 2_u32.saturating_pow(n_failures.saturating_sub(1));
        let aside = ASIDE_MIN.saturating_mul(doubled).min(ASIDE_MAX);
        standing.trouble = Some(Trouble { n_failures, aside_until: now + aside });
    }

    /// The endpoint told its newest block. Only what it says itself puts it behind, so that nobody
    /// falls behind for not being asked.
    pub(super) fn note_head(&mut self, index: usize, head: Head, now: Instant) {
        let best = self.best_of_others(index, now);
        let Some(standing) = self.0.get_mut(index) else { return };
        standing.head = Some((head, now));
        if best.is_none_or(|best| best.saturating_sub(head.number) <= LAG_BLOCKS_MAX) {
            (standing.lagging_since, standing.is_behind) = (None, false);
            return;
        }
        let since = *standing.lagging_since.get_or_insert(now);
        standing.is_behind = now.duration_since(since) > LAG_MAX;
    }

    fn best_of_others(&self, index: usize, now: Instant) -> Option<u64> {
        let heads = self.0.iter().enumerate().filter(|(other, standing)| {
            let is_believed = standing.identity.is_some_and(|identity| identity.is_right);
            *other != index && is_believed && standing.trouble.is_none()
        });
        let recent = heads
            .filter_map(|(_, standing)| standing.head)
            .filter(|(_, seen_at)| now.duration_since(*seen_at) <= HEAD_REMEMBERED);
        recent.map(|(head, _)| head.number).max()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{
        ASIDE_MAX, ASIDE_MIN, Fitness, HEAD_REMEMBERED, Head, IDENTITY_BELIEVED, LAG_BLOCKS_MAX,
        LAG_MAX, Standings,
    };

    const TICK: Duration = Duration::from_millis(1);

    fn identified(n_endpoints: usize, now: Instant) -> Standings {
        let mut standings = Standings::new(n_endpoints);
        (0..n_endpoints).for_each(|index| standings.note_identity(index, true, now));
        standings
    }

    const fn head(number: u64) -> Head {
        Head { number, is_stale: false }
    }

    #[test]
    fn the_first_fit_endpoint_is_asked_first_and_others_need_a_name() {
        let now = Instant::now();
        let mut standings = Standings::new(3);
        assert_eq!(standings.candidates(), [0, 1, 2]);
        standings.note_identity(2, true, now);
        assert_eq!(standings.candidates(), [2, 0, 1]);
        standings.note_identity(0, false, now);
        assert_eq!(standings.fitness(0), Fitness::OtherChain);
        assert_eq!(standings.candidates(), [2, 1]);
    }

    #[test]
    fn where_none_is_fit_all_are_tried_the_knowing_first() {
        let now = Instant::now();
        let mut standings = identified(4, now);
        standings.note_identity(0, false, now);
        standings.note_failure(1, now);
        standings.note_head(2, Head { number: 9, is_stale: true }, now);
        standings.note_failure(3, now);
        assert_eq!(standings.candidates(), [2, 1, 3, 0]);
        let mut alone = identified(1, now);
        alone.note_failure(0, now);
        assert_eq!(alone.candidates(), [0]);
    }

    #[test]
    fn an_endpoint_that_failed_is_left_alone_for_a_growing_time() {
        let mut now = Instant::now();
        let mut standings = identified(2, now);
        let mut aside = ASIDE_MIN;
        for _ in 0..8 {
            standings.note_failure(0, now);
            // The failure of a call that was under way meanwhile changes nothing.
            standings.note_failure(0, now + TICK);
            assert!(standings.is_aside(0, now + aside - TICK));
            assert!(!standings.is_aside(0, now + aside));
            assert_eq!(standings.candidates(), [1], "it has not answered since");
            now += aside;
            aside = (aside * 2).min(ASIDE_MAX);
        }
        standings.note_answer(0);
        assert_eq!(standings.candidates(), [0, 1]);
        standings.note_failure(0, now);
        assert!(!standings.is_aside(0, now + ASIDE_MIN), "it starts anew");
    }

    #[test]
    fn an_endpoint_is_behind_when_it_lags_far_for_long() {
        let start = Instant::now();
        let mut standings = identified(2, start);
        standings.note_head(1, head(100), start);
        standings.note_head(0, head(100 - LAG_BLOCKS_MAX), start);
        standings.note_head(0, head(100 - LAG_BLOCKS_MAX), start + LAG_MAX + TICK);
        assert_eq!(standings.fitness(0), Fitness::Fit, "not far");
        let far = head(100 - LAG_BLOCKS_MAX - 1);
        standings.note_head(0, far, start);
        standings.note_head(0, far, start + LAG_MAX);
        assert_eq!(standings.fitness(0), Fitness::Fit, "not long");
        standings.note_head(0, far, start + LAG_MAX + TICK);
        assert_eq!(standings.fitness(0), Fitness::Behind);
        assert_eq!(standings.candidates(), [1]);
        standings.note_head(0, head(100), start + LAG_MAX + TICK);
        assert_eq!(standings.fitness(0), Fitness::Fit, "it caught up");
    }

    #[test]
    fn nobody_lags_behind_a_head_that_is_not_believed() {
        let start = Instant::now();
        let far = start + LAG_MAX + TICK;
        let forgotten = start + HEAD_REMEMBERED + TICK;
        for (what, seen_at) in [("another chain's", far), ("a dead one's", far), ("old", forgotten)]
        {
            let mut standings = identified(2, start);
            standings.note_head(1, head(100), start);
            match what {
                "another chain's" => standings.note_identity(1, false, start),
                "a dead one's" => standings.note_failure(1, start),
                _ => (),
            }
            standings.note_head(0, head(1), seen_at);
            standings.note_head(0, head(1), seen_at + LAG_MAX + TICK);
            assert_eq!(standings.fitness(0), Fitness::Fit, "{what}");
        }
        let mut alone = identified(1, start);
        alone.note_head(0, head(100), start);
        alone.note_head(0, head(1), far);
        assert_eq!(alone.fitness(0), Fitness::Fit, "a rollback of the only one");
    }

    #[test]
    fn a_chain_id_is_asked_for_until_known_and_then_rarely() {
        let now = Instant::now();
        let mut standings = Standings::new(1);
        assert!(standings.wants_identity(0, now));
        assert!(!standings.is_identified(0));
        for is_right in [true, false] {
            standings.note_identity(0, is_right, now);
            assert!(!standings.wants_identity(0, now + IDENTITY_BELIEVED));
            assert!(standings.wants_identity(0, now + IDENTITY_BELIEVED + TICK));
            assert_eq!(standings.is_identified(0), is_right);
        }
    }
}
