//! Which settlements share a transaction.
//!
//! Nothing waits for company: whatever waits when a place is free goes. What a transaction left
//! unpaid before travels in ever smaller company, so that what spoiled it ends alone.

use super::gas::{TRANSACTION_BYTES_MAX, TRANSACTION_GAS_MAX};

/// A settlement that waits, as far as its company is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Waiting {
    /// How many may share its transaction; `None` for as many as fit.
    pub(in crate::engine) n_together_max: Option<usize>,
    /// Whether code of the payer's runs when it is paid. It travels among its like only.
    pub(in crate::engine) runs_code: bool,
    /// The gas that it takes of a batch's limit at most.
    pub(in crate::engine) gas: u64,
    /// How long its item is in a batch's calldata.
    pub(in crate::engine) n_bytes: usize,
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Room {
    /// How many settlements may share a transaction.
    pub(in crate::engine) n_together_max: usize,
    /// How many transactions may be sent now.
    pub(in crate::engine) n_transactions: usize,
    /// How many of them may carry what was left unpaid before, or payers' code: it must not fill every
    /// place.
    pub(in crate::engine) n_retries: usize,
    /// Whether what carries a batch holds each item to its gas, so that payers' code may share one.
    pub(in crate::engine) caps_items: bool,
}

/// Bytes of a transaction that are not items: its envelope, and a batch's head.
const OVERHEAD_BYTES: usize = 1_024;
/// Gas of a transaction that items do not bring along.
const OVERHEAD_GAS: u64 = 100_000;

/// One transaction to be: which of the waiting it carries, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Batch {
    /// Their places in the list that was planned.
    pub(in crate::engine) items: Vec<usize>,
    /// The company that all of them accept.
    n_together_max: Option<usize>,
    runs_code: bool,
    n_bytes: usize,
    gas: u64,
}

impl Batch {
    /// Whether it travels in the lane that may not fill every place.
    pub(in crate::engine) const fn is_apart(&self) -> bool {
        self.n_together_max.is_some() || self.runs_code
    }
}

/// Sorts the waiting, oldest first, into at most as many transactions as there is room for. Who is in
/// none of them waits on.
pub(in crate::engine) fn plan(waiting: &[Waiting], room: Room) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (index, item) in waiting.iter().enumerate() {
        let alone = (item.runs_code && !room.caps_items).then_some(1);
        let limit = alone.or(item.n_together_max).unwrap_or(room.n_together_max);
        let fits = |batch: &&mut Batch| {
            let n_bytes = batch.n_bytes.saturating_add(item.n_bytes);
            batch.n_together_max == item.n_together_max
                && batch.runs_code == item.runs_code
                && batch.items.len() < limit.min(room.n_together_max)
                && n_bytes <= TRANSACTION_BYTES_MAX
                && batch.gas.saturating_add(item.gas) <= TRANSACTION_GAS_MAX
        };
        if let Some(batch) = batches.iter_mut().find(fits) {
            batch.items.push(index);
            batch.n_bytes = batch.n_bytes.saturating_add(item.n_bytes);
            batch.gas = batch.gas.saturating_add(item.gas);
            continue;
        }
        let n_apart = batches.iter().filter(|batch| batch.is_apart()).count();
        let batch = Batch {
            items: vec![index],
            n_together_max: item.n_together_max,
            runs_code: item.runs_code,
            n_bytes: OVERHEAD_BYTES.saturating_add(item.n_bytes),
            gas: OVERHEAD_GAS.saturating_add(item.gas),
        };
        if batches.len() < room.n_transactions && (!batch.is_apart() || n_apart < room.n_retries) {
            batches.push(batch);
        }
    }
    batches
}

/// How much company a settlement accepts after a transaction of `n_items` left it unpaid: none if
/// the others were paid, half if the whole transaction reverted and nobody knows by whose fault.
pub(in crate::engine) const fn company_after(n_items: usize, has_reverted: bool) -> usize {
    if has_reverted && n_items > 1 { n_items.div_ceil(2) } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::{
        super::gas::{batch_gas_limit, item_gas},
        Room, TRANSACTION_BYTES_MAX, TRANSACTION_GAS_MAX, Waiting, company_after, plan,
    };

    const ROOM: Room =
        Room { n_together_max: 4, n_transactions: 3, n_retries: 1, caps_items: true };
    const PLAIN: Waiting =
        Waiting { n_together_max: None, runs_code: false, gas: 140_000, n_bytes: 500 };

    fn planned(caps: &[Option<usize>], room: Room) -> Vec<Vec<usize>> {
        let waiting: Vec<Waiting> =
            caps.iter().map(|cap| Waiting { n_together_max: *cap, ..PLAIN }).collect();
        plan(&waiting, room).into_iter().map(|batch| batch.items).collect()
    }

    #[test]
    fn who_waits_together_travels_together() {
        let free = None;
        assert!(planned(&[], ROOM).is_empty());
        assert_eq!(planned(&[free], ROOM), [[0]]);
        assert_eq!(planned(&[free; 6], ROOM), [vec![0, 1, 2, 3], vec![4, 5]]);
        // The thirteenth waits on.
        assert_eq!(planned(&[free; 13], ROOM).concat().len(), 12);
    }

    #[test]
    fn what_was_left_unpaid_travels_apart_and_does_not_fill_every_place() {
        let (free, alone, two) = (None, Some(1), Some(2));
        assert_eq!(planned(&[alone, free, free], ROOM), [vec![0], vec![1, 2]]);
        assert_eq!(planned(&[alone, alone, free], ROOM), [vec![0], vec![2]]);
        let room = Room { n_retries: 2, ..ROOM };
        assert_eq!(planned(&[two, two, two, free], room), [vec![0, 1], vec![2], vec![3]]);
    }

    #[test]
    fn a_transaction_holds_what_the_chain_allows() {
        let large = Waiting { n_bytes: TRANSACTION_BYTES_MAX / 3, ..PLAIN };
        let room = Room { n_together_max: 1_000, n_transactions: 9, ..ROOM };
        let batches = plan(&[large; 5], room);
        assert_eq!(batches.iter().map(|b| b.items.len()).collect::<Vec<_>>(), [2, 2, 1]);
        let small = Waiting { n_bytes: 1, ..PLAIN };
        let n_items = plan(&[small; 300], room)[0].items.len();
        let gas = |n: usize| 100_000 + 140_000 * u64::try_from(n).unwrap();
        assert!(gas(n_items) <= TRANSACTION_GAS_MAX && TRANSACTION_GAS_MAX < gas(n_items + 1));
    }

    #[test]
    fn no_batch_asks_for_more_gas_than_a_transaction_may_have() {
        let mut n_full = 0;
        for n_bytes in [484, 1_000, 2_000, 4_400, 8_600] {
            for gas_cap in [120_000, 150_000, 531_000, 655_000, 1_280_000] {
                let gas = item_gas(gas_cap, n_bytes);
                let item = Waiting { runs_code: true, gas, n_bytes, ..PLAIN };
                let room = Room { n_together_max: 100, n_transactions: 1, ..ROOM };
                let batch = plan(&[item; 120], room).remove(0).items.len();
                // The worst that their calldata can be.
                let limit = batch_gas_limit(&vec![1; 68 + n_bytes * batch], &vec![gas_cap; batch]);
                assert!(limit <= TRANSACTION_GAS_MAX, "{batch} of {n_bytes} bytes: {limit}");
                n_full += usize::from(batch == 100);
            }
        }
        assert!(n_full > 0, "plain payments fill a batch");
    }

    #[test]
    fn payers_code_travels_among_its_like_and_alone_where_nothing_holds_it_to_its_gas() {
        let code = Waiting { runs_code: true, gas: 600_000, ..PLAIN };
        let waiting = [PLAIN, code, PLAIN, code, code];
        let items = |room: Room| -> Vec<Vec<usize>> {
            plan(&waiting, room).into_iter().map(|batch| batch.items).collect()
        };
        assert_eq!(items(ROOM), [vec![0, 2], vec![1, 3, 4]]);
        let uncapped = Room { caps_items: false, ..ROOM };
        assert_eq!(items(uncapped), [vec![0, 2], vec![1]]);
        let none = Room { n_retries: 0, ..ROOM };
        assert_eq!(items(none), [vec![0, 2]]);
    }

    #[test]
    fn a_reverted_batch_is_halved_until_the_culprit_is_alone() {
        let (mut n, mut rounds) = (100, 0);
        while n > 1 {
            n = company_after(n, true);
            rounds += 1;
        }
        assert_eq!(rounds, 7);
        assert_eq!(company_after(1, true), 1);
        assert_eq!(company_after(64, false), 1);
    }
}
