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
    /// How many of them may carry what was left unpaid before: it must not fill every place.
    pub(in crate::engine) n_retries: usize,
}

/// Bytes of a transaction that are not items: its envelope, and a batch's head.
const OVERHEAD_BYTES: usize = 1_024;
/// The gas that one item takes of a batch's limit at most: its cap, its calldata, the settler's work.
const ITEM_GAS_MAX: u64 = 140_000;

/// One transaction to be: which of the waiting it carries, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Batch {
    /// Their places in the list that was planned.
    pub(in crate::engine) items: Vec<usize>,
    /// The company that all of them accept.
    pub(in crate::engine) n_together_max: Option<usize>,
    n_bytes: usize,
}

/// How many items a transaction holds by gas.
pub(in crate::engine) fn n_items_by_gas() -> usize {
    usize::try_from(TRANSACTION_GAS_MAX / ITEM_GAS_MAX).unwrap_or(1)
}

/// Sorts the waiting, oldest first, into at most as many transactions as there is room for. Who is in
/// none of them waits on.
pub(in crate::engine) fn plan(waiting: &[Waiting], room: Room) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (index, item) in waiting.iter().enumerate() {
        let limit = item
            .n_together_max
            .unwrap_or(room.n_together_max)
            .min(room.n_together_max)
            .min(n_items_by_gas());
        let fits = |batch: &&mut Batch| {
            let n_bytes = batch.n_bytes.saturating_add(item.n_bytes);
            batch.n_together_max == item.n_together_max
                && batch.items.len() < limit
                && n_bytes <= TRANSACTION_BYTES_MAX
        };
        if let Some(batch) = batches.iter_mut().find(fits) {
            batch.items.push(index);
            batch.n_bytes = batch.n_bytes.saturating_add(item.n_bytes);
            continue;
        }
        let n_retries = batches.iter().filter(|batch| batch.n_together_max.is_some()).count();
        let is_allowed = item.n_together_max.is_none() || n_retries < room.n_retries;
        if batches.len() < room.n_transactions && is_allowed {
            batches.push(Batch {
                items: vec![index],
                n_together_max: item.n_together_max,
                n_bytes: OVERHEAD_BYTES.saturating_add(item.n_bytes),
            });
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
    use super::{Room, TRANSACTION_BYTES_MAX, Waiting, company_after, n_items_by_gas, plan};

    const ROOM: Room = Room { n_together_max: 4, n_transactions: 3, n_retries: 1 };

    fn planned(caps: &[Option<usize>], room: Room) -> Vec<Vec<usize>> {
        let waiting: Vec<Waiting> =
            caps.iter().map(|cap| Waiting { n_together_max: *cap, n_bytes: 500 }).collect();
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
        let large = Waiting { n_together_max: None, n_bytes: TRANSACTION_BYTES_MAX / 3 };
        let room = Room { n_together_max: 1_000, n_transactions: 9, n_retries: 1 };
        let batches = plan(&[large; 5], room);
        assert_eq!(batches.iter().map(|b| b.items.len()).collect::<Vec<_>>(), [2, 2, 1]);
        let small = Waiting { n_together_max: None, n_bytes: 1 };
        assert_eq!(plan(&[small; 300], room)[0].items.len(), n_items_by_gas());
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
