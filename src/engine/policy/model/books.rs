//! The books: what the tables hold, and the rules that `engine/store`, `ledger` and the triggers of
//! the migrations keep on them. Every function is one statement of theirs, under its name.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256};

use crate::{
    chain::{Block, Receipt, TokenEvent},
    domain::{Evidence, Refusal, SettlementId, SettlementStatus, UnixTime},
    engine::{
        policy::fees::Fees,
        store::{
            MinedTransaction, OpenTransaction, Purpose, Queued, Tip, Unfinished, WalletStatus,
        },
    },
    ledger::{Proof, Settlement},
};

use super::chain::Envelope;

/// What a lease is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owned {
    Wallet(usize),
    Follower,
}

/// A lease that somebody holds, or thinks that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) owned: Owned,
    pub(super) epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseRow {
    pub(super) epoch: u64,
    pub(super) holder: usize,
    pub(super) has_ended: bool,
}

/// A row that a trigger or a constraint refuses: code that tries it is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

#[derive(Debug, Clone)]
pub(super) struct SettlementRow {
    pub(super) settlement: Settlement,
    pub(super) evidence: Option<Evidence>,
    n_alone: u32,
    n_together_max: Option<usize>,
    created_at: u64,
    not_before: u64,
    reserved_until: u64,
}

#[derive(Debug, Clone)]
pub(super) struct WalletBooks {
    pub(super) address: Address,
    pub(super) status: WalletStatus,
    pub(super) next_account_nonce: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransactionStatus {
    Open,
    Mined { number: u64, block_hash: B256 },
    Finalized { block_hash: B256 },
    Foreign,
}

#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) envelope: Envelope,
    pub(super) is_cancellation: bool,
}

#[derive(Debug, Clone)]
pub(super) struct TransactionRow {
    pub(super) wallet: usize,
    pub(super) account_nonce: u64,
    pub(super) purpose: Purpose,
    pub(super) status: TransactionStatus,
    pub(super) attempts: Vec<Attempt>,
    pub(super) items: Vec<SettlementId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Post,
    Reverse,
    Void,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct GasEntry {
    pub(super) transaction_id: usize,
    pub(super) kind: Kind,
    pub(super) block_hash: B256,
    pub(super) fee_wei: U256,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    pub(super) settlements: BTreeMap<SettlementId, SettlementRow>,
    pub(super) wallets: Vec<WalletBooks>,
    pub(super) transactions: Vec<TransactionRow>,
    pub(super) leases: BTreeMap<Owned, LeaseRow>,
    pub(super) head: Option<Tip>,
    pub(super) applied: BTreeMap<u64, B256>,
    pub(super) finalized_number: Option<u64>,
    pub(super) payments: Vec<(SettlementId, Kind)>,
    pub(super) gas: Vec<GasEntry>,
}

/// `engine/store/queue.rs`.
const N_ALONE_MAX: u32 = 3;
const FRESH_SECONDS: u64 = 4;
const RESERVATION_SECONDS: u64 = 2;
const NOT_NOW_SECONDS: u64 = 2;
/// `engine/store/watch.rs`.
const EXPIRY_DEPTH_SECONDS: u64 = 6;

impl Books {
    // Leases.

    pub(super) fn acquire_lease(&mut self, owned: Owned, holder: usize) -> Option<Lease> {
        let row =
            self.leases.entry(owned).or_insert(LeaseRow { epoch: 0, holder, has_ended: true });
        if !row.has_ended && row.holder != holder {
            return None;
        }
        *row = LeaseRow { epoch: row.epoch + 1, holder, has_ended: false };
        Some(Lease { owned, epoch: row.epoch })
    }

    pub(super) fn hold_lease(&self, lease: Lease) -> bool {
        self.leases.get(&lease.owned).is_some_and(|row| row.epoch == lease.epoch && !row.has_ended)
    }

    // The queue.

    pub(super) fn claim(&mut self, settlement: Settlement, now: u64) -> bool {
        let is_same = |row: &SettlementRow| {
            let (one, other) = (&row.settlement.authorization, &settlement.authorization);
            one.payer == other.payer && one.nonce == other.nonce
        };
        if self.settlements.values().any(is_same) {
            return false;
        }
        let row = SettlementRow {
            settlement,
            evidence: None,
            n_alone: 0,
            n_together_max: None,
            created_at: now,
            not_before: now,
            reserved_until: 0,
        };
        self.settlements.insert(row.settlement.settlement_id, row);
        true
    }

    pub(super) fn reserve(&mut self, n_max: usize, with_retries: bool, now: u64) -> Vec<Queued> {
        let is_free = |row: &&mut SettlementRow| {
            row.settlement.status == SettlementStatus::Claimed
                && row.n_alone < N_ALONE_MAX
                && row.not_before <= now
                && row.reserved_until <= now
                && (with_retries || row.n_together_max.is_none())
        };
        let mut free: Vec<_> = self.settlements.values_mut().filter(is_free).collect();
        free.sort_by_key(|row| row.not_before);
        let mut queued: Vec<Queued> = free
            .into_iter()
            .take(n_max)
            .map(|row| {
                row.reserved_until = now + RESERVATION_SECONDS;
                Queued {
                    settlement_id: row.settlement.settlement_id,
                    n_together_max: row.n_together_max,
                    is_fresh: row.settlement.n_transactions == 0
                        && row.created_at + FRESH_SECONDS > now,
                }
            })
            .collect();
        queued.sort_unstable_by_key(|queued| queued.settlement_id);
        queued
    }

    pub(super) fn unreserve(&mut self, settlement_ids: &[SettlementId]) {
        for id in settlement_ids {
            self.row_mut(*id).reserved_until = 0;
        }
    }

    pub(super) fn postpone(&mut self, settlement_id: SettlementId, now: u64) {
        let row = self.row_mut(settlement_id);
        let delay = NOT_NOW_SECONDS.max((now.saturating_sub(row.created_at) / 4).min(60));
        (row.reserved_until, row.not_before) = (0, now + delay);
    }

    pub(super) fn limit_company(&mut self, settlement_ids: &[SettlementId], n_together: usize) {
        for id in settlement_ids {
            let row = self.row_mut(*id);
            if is_unfinished(row) {
                let n_max = row.n_together_max.map_or(n_together, |n| n.min(n_together));
                (row.n_together_max, row.reserved_until) = (Some(n_max), 0);
            }
        }
    }

    // Transactions.

    pub(super) fn open_transactions(&self, wallet: usize) -> Vec<OpenTransaction> {
        let mut open = Vec::new();
        for (id, row) in (0..).zip(&self.transactions) {
            let Some(newest) = row.attempts.last() else { continue };
            if row.wallet != wallet || row.status != TransactionStatus::Open {
                continue;
            }
            let highest = |fee: fn(&Fees) -> u128| {
                row.attempts.iter().map(|attempt| fee(&attempt.envelope.fees)).max().unwrap_or(0)
            };
            let is_submitted = |id: &SettlementId| self.status(*id) == SettlementStatus::Submitted;
            open.push(OpenTransaction {
                transaction_id: id,
                account_nonce: row.account_nonce,
                hash: newest.envelope.hash,
                gas_limit: newest.envelope.gas_limit,
                is_cancelled: newest.is_cancellation,
                offered: Fees {
                    fee_wei_max: highest(|fees| fees.fee_wei_max),
                    priority_fee_wei_max: highest(|fees| fees.priority_fee_wei_max),
                },
                is_retry: row.purpose == Purpose::Retry,
                is_useless: !row.items.iter().any(is_submitted),
            });
        }
        open.sort_by_key(|open| open.account_nonce);
        open
    }

    /// Takes the account nonce and stores the first attempt. `None` if the nonce is taken.
    pub(super) fn store_transaction(
        &mut self,
        wallet: usize,
        envelope: Envelope,
        purpose: Purpose,
        items: &[SettlementId],
    ) -> Option<usize> {
        let row = self.wallets.get_mut(wallet)?;
        let account_nonce = envelope.account_nonce;
        if row.next_account_nonce != account_nonce || row.status != WalletStatus::Active {
            return None;
        }
        row.next_account_nonce += 1;
        self.transactions.push(TransactionRow {
            wallet,
            account_nonce,
            purpose,
            status: TransactionStatus::Open,
            attempts: vec![Attempt { envelope, is_cancellation: false }],
            items: items.to_vec(),
        });
        Some(self.transactions.len() - 1)
    }

    pub(super) fn store_attempt(&mut self, transaction_id: i64, attempt: Attempt) -> bool {
        let row = &mut self.transactions[index(transaction_id)];
        let is_open = row.status == TransactionStatus::Open;
        if is_open {
            row.attempts.push(attempt);
        }
        is_open
    }

    pub(super) fn payload_of(&self, transaction_id: i64) -> &Envelope {
        let mut attempts = self.transactions[index(transaction_id)].attempts.iter();
        let payload = attempts.find(|attempt| !attempt.is_cancellation);
        &payload.expect("the first attempt is no cancellation").envelope
    }

    pub(super) fn attempt(&self, hash: B256) -> Option<&Envelope> {
        let mut attempts = self.transactions.iter().flat_map(|row| &row.attempts);
        attempts.find(|attempt| attempt.envelope.hash == hash).map(|attempt| &attempt.envelope)
    }

    pub(super) fn ours_among(&self, hashes: &[B256]) -> Vec<MinedTransaction> {
        let mut ours = Vec::new();
        for (transaction_id, row) in (0..).zip(&self.transactions) {
            if !matches!(row.status, TransactionStatus::Open | TransactionStatus::Foreign) {
                continue;
            }
            let mined = row.attempts.iter().filter(|a| hashes.contains(&a.envelope.hash));
            ours.extend(mined.map(|attempt| MinedTransaction {
                transaction_id,
                hash: attempt.envelope.hash,
                wallet: self.wallets[row.wallet].address,
                settlement_ids: row.items.clone(),
                is_cancellation: attempt.is_cancellation,
            }));
        }
        ours
    }

    pub(super) fn mark_mined(&mut self, transaction_id: i64, receipt: &Receipt) {
        let (number, block_hash) = (receipt.block_number, receipt.block_hash);
        self.transactions[index(transaction_id)].status =
            TransactionStatus::Mined { number, block_hash };
    }

    pub(super) fn mark_foreign(&mut self, wallet: usize, below: u64) -> Vec<SettlementId> {
        let mut carried = Vec::new();
        for row in &mut self.transactions {
            let is_open = row.status == TransactionStatus::Open;
            if row.wallet == wallet && is_open && row.account_nonce < below {
                row.status = TransactionStatus::Foreign;
                carried.extend(row.items.iter().copied());
            }
        }
        carried
    }

    // Settlements.

    pub(super) fn submit(&mut self, settlement_ids: &[SettlementId]) -> Result<bool, Refused> {
        for id in settlement_ids {
            if self.status(*id) != SettlementStatus::Claimed {
                return Ok(false);
            }
            self.set_status(*id, SettlementStatus::Submitted)?;
            let row = self.row_mut(*id);
            row.settlement.n_transactions += 1;
            row.n_alone += u32::from(settlement_ids.len() == 1);
            row.reserved_until = 0;
        }
        Ok(true)
    }

    /// Returns how many came to be so; the others were already.
    pub(super) fn include(&mut self, proofs: &[Proof]) -> Result<usize, Refused> {
        let mut n_included = 0;
        for proof in proofs {
            if !self.status(proof.settlement_id).may_become(SettlementStatus::Included) {
                continue;
            }
            self.set_status(proof.settlement_id, SettlementStatus::Included)?;
            self.row_mut(proof.settlement_id).evidence = Some(proof.evidence);
            self.enter(proof.settlement_id, Kind::Post)?;
            n_included += 1;
        }
        Ok(n_included)
    }

    pub(super) fn fail(
        &mut self,
        settlement_id: SettlementId,
        expected: &[SettlementStatus],
        refusal: &Refusal,
    ) -> Result<bool, Refused> {
        if !expected.contains(&self.status(settlement_id)) {
            return Ok(false);
        }
        self.set_status(settlement_id, SettlementStatus::Failed)?;
        self.row_mut(settlement_id).settlement.failure = Some(refusal.clone());
        self.enter(settlement_id, Kind::Void)?;
        Ok(true)
    }

    pub(super) fn requeue(&mut self, settlement_id: SettlementId) -> Result<(), Refused> {
        if self.status(settlement_id) != SettlementStatus::Submitted
            || self.has_open_transaction(settlement_id)
        {
            return Ok(());
        }
        self.set_status(settlement_id, SettlementStatus::Claimed)
    }

    fn has_open_transaction(&self, settlement_id: SettlementId) -> bool {
        let mut open = self.transactions.iter().filter(|t| t.status == TransactionStatus::Open);
        open.any(|transaction| transaction.items.contains(&settlement_id))
    }

    // The head.

    pub(super) fn start_at(&mut self, block: &Block) {
        self.head = Some(Tip { number: block.number, hash: block.hash });
        self.applied = BTreeMap::from([(block.number, block.hash)]);
    }

    pub(super) fn hold_tip(&self, tip: Tip) -> bool {
        self.head.is_some_and(|head| head.hash == tip.hash)
    }

    pub(super) fn advance(&mut self, block: &Block, from: B256) -> bool {
        if self.head.is_none_or(|head| head.hash != from) {
            return false;
        }
        self.head = Some(Tip { number: block.number, hash: block.hash });
        self.applied.insert(block.number, block.hash);
        true
    }

    pub(super) fn is_canonical(&self, evidence: &Evidence) -> bool {
        let Some(head) = self.head else { return false };
        match self.applied.get(&evidence.block_number) {
            Some(hash) => *hash == evidence.block_hash,
            None => evidence.block_number < head.number,
        }
    }

    pub(super) fn rewind(&mut self, tip: Tip, ancestor: &Block) -> Option<Vec<B256>> {
        if !self.hold_tip(tip) {
            return None;
        }
        self.head = Some(Tip { number: ancestor.number, hash: ancestor.hash });
        let left = self.applied.split_off(&(ancestor.number + 1));
        self.applied.insert(ancestor.number, ancestor.hash);
        Some(left.into_values().collect())
    }

    pub(super) fn reopen(&mut self, ancestor: u64) -> Vec<usize> {
        let mut reopened = Vec::new();
        for (id, row) in self.transactions.iter_mut().enumerate() {
            match row.status {
                TransactionStatus::Mined { number, .. } if number > ancestor => {
                    row.status = TransactionStatus::Open;
                    reopened.push(id);
                }
                _ => (),
            }
        }
        reopened
    }

    pub(super) fn orphan(&mut self, ancestor: u64) -> Result<(), Refused> {
        let stands_above = |row: &&SettlementRow| {
            let is_taken_back = matches!(
                row.settlement.status,
                SettlementStatus::Included | SettlementStatus::Safe
            );
            is_taken_back && row.evidence.is_some_and(|evidence| evidence.block_number > ancestor)
        };
        let orphaned: Vec<SettlementId> = self
            .settlements
            .values()
            .filter(stands_above)
            .map(|row| row.settlement.settlement_id)
            .collect();
        for id in orphaned {
            let to = match self.has_open_transaction(id) {
                true => SettlementStatus::Submitted,
                false => SettlementStatus::Claimed,
            };
            self.set_status(id, to)?;
            self.row_mut(id).evidence = None;
            self.enter(id, Kind::Reverse)?;
        }
        Ok(())
    }

    pub(super) fn reverse_gas(&mut self, transaction_ids: &[usize], left: &[B256]) {
        let standing = self.standing_gas();
        self.gas.extend(standing.into_iter().filter_map(|entry| {
            let is_gone =
                transaction_ids.contains(&entry.transaction_id) && left.contains(&entry.block_hash);
            is_gone.then_some(GasEntry { kind: Kind::Reverse, ..entry })
        }));
    }

    /// What was charged for gas and not taken back.
    pub(super) fn standing_gas(&self) -> Vec<GasEntry> {
        let mut standing: Vec<GasEntry> = Vec::new();
        for entry in &self.gas {
            match entry.kind {
                Kind::Reverse => {
                    let is_it = |post: &GasEntry| {
                        post.transaction_id == entry.transaction_id
                            && post.block_hash == entry.block_hash
                            && post.fee_wei == entry.fee_wei
                    };
                    if let Some(at) = standing.iter().position(is_it) {
                        standing.remove(at);
                    }
                }
                Kind::Post | Kind::Void => standing.push(*entry),
            }
        }
        standing
    }

    pub(super) fn settle_heights(&mut self, finalized: u64) {
        self.finalized_number = self.finalized_number.max(Some(finalized));
        for row in &mut self.transactions {
            match row.status {
                TransactionStatus::Mined { number, block_hash } if number <= finalized => {
                    row.status = TransactionStatus::Finalized { block_hash };
                }
                _ => (),
            }
        }
        self.applied = self.applied.split_off(&finalized);
    }

    pub(super) fn promote(&mut self, safe: u64, finalized: u64) -> Result<(), Refused> {
        let (included, is_safe) = (SettlementStatus::Included, SettlementStatus::Safe);
        for (from, to, number) in
            [(included, is_safe, safe), (is_safe, SettlementStatus::Finalized, finalized)]
        {
            let is_deep = |row: &&SettlementRow| {
                row.settlement.status == from
                    && row.evidence.is_some_and(|evidence| evidence.block_number <= number)
            };
            let ids = self.settlements.values().filter(is_deep);
            let ids: Vec<_> = ids.map(|row| row.settlement.settlement_id).collect();
            for id in ids {
                self.set_status(id, to)?;
            }
        }
        Ok(())
    }

    // What blocks can concern.

    pub(super) fn unfinished(&self, block_time: UnixTime) -> Unfinished {
        let rows = || self.settlements.values();
        let statuses = || self.transactions.iter().map(|row| row.status);
        let stands = [SettlementStatus::Included, SettlementStatus::Safe];
        Unfinished {
            is_busy: rows().any(is_unfinished)
                || statuses().any(|status| status == TransactionStatus::Open),
            is_unsettled: rows().any(|row| stands.contains(&row.settlement.status))
                || statuses().any(|status| matches!(status, TransactionStatus::Mined { .. })),
            is_payable: rows().any(|row| is_failed_and_payable(row, block_time)),
        }
    }

    pub(super) fn watches(&self, block_time: UnixTime) -> bool {
        let mut rows = self.settlements.values();
        rows.any(|row| is_unfinished(row) || is_failed_and_payable(row, block_time))
    }

    pub(super) fn settlements_of(&self, events: &[TokenEvent]) -> Vec<SettlementId> {
        let is_touched = |row: &&SettlementRow| {
            let authorization = &row.settlement.authorization;
            events.iter().any(|event| {
                event.payer == authorization.payer && event.nonce == authorization.nonce
            })
        };
        let touched = self.settlements.values().filter(is_touched);
        touched.map(|row| row.settlement.settlement_id).collect()
    }

    pub(super) fn expired(&self, block_time: UnixTime) -> Vec<SettlementId> {
        let is_over = |row: &&SettlementRow| {
            let over = row.settlement.authorization.valid_before + U256::from(EXPIRY_DEPTH_SECONDS);
            is_unfinished(row) && over <= block_time.as_u256()
        };
        let expired = self.settlements.values().filter(is_over);
        expired.map(|row| row.settlement.settlement_id).collect()
    }

    // Triggers.

    /// `settlement_status_guard`.
    fn set_status(&mut self, id: SettlementId, to: SettlementStatus) -> Result<(), Refused> {
        let from = self.status(id);
        if !from.may_become(to) {
            return Err(Refused(format!("a settlement may not go from {from:?} to {to:?}")));
        }
        let row = self.row_mut(id);
        row.settlement.status = to;
        if to != SettlementStatus::Failed {
            row.settlement.failure = None;
        }
        Ok(())
    }

    /// `ledger_entry_net_guard`.
    fn enter(&mut self, id: SettlementId, kind: Kind) -> Result<(), Refused> {
        self.payments.push((id, kind));
        let (net, n_reverses) = (self.net_posts(id), self.count(id, Kind::Reverse));
        if !(0..=1).contains(&net) || self.count(id, Kind::Void) > n_reverses + 1 {
            return Err(Refused(format!("{kind:?} would make {net} net posts")));
        }
        Ok(())
    }

    fn count(&self, id: SettlementId, kind: Kind) -> i64 {
        let n = self.payments.iter().filter(|entry| **entry == (id, kind)).count();
        i64::try_from(n).expect("entries are few")
    }

    pub(super) fn net_posts(&self, id: SettlementId) -> i64 {
        self.count(id, Kind::Post) - self.count(id, Kind::Reverse)
    }

    pub(super) fn status(&self, id: SettlementId) -> SettlementStatus {
        self.settlements[&id].settlement.status
    }

    fn row_mut(&mut self, id: SettlementId) -> &mut SettlementRow {
        self.settlements.get_mut(&id).expect("settlements are never deleted")
    }
}

fn is_unfinished(row: &SettlementRow) -> bool {
    matches!(row.settlement.status, SettlementStatus::Claimed | SettlementStatus::Submitted)
}

fn is_failed_and_payable(row: &SettlementRow, block_time: UnixTime) -> bool {
    row.settlement.status == SettlementStatus::Failed
        && row.settlement.authorization.valid_before > block_time.as_u256()
}

fn index(transaction_id: i64) -> usize {
    usize::try_from(transaction_id).expect("transactions are counted from zero")
}
