//! Transactions, account nonces, epochs and gas: I3, I4, I9, I10.

use std::collections::{BTreeMap, HashMap};

use alloy::primitives::{Address, B256, U256};

use crate::record::{Attempt, Mined, Transaction};

use super::Case;

/// EIP-7825.
const TRANSACTION_GAS_MAX: u64 = 16_777_216;
/// What an offer may not pass, by default.
const FEE_WEI_MAX: u128 = 100_000_000_000;
/// How often a settlement may be paid for alone, and how often at all: alone, in seven halvings of a
/// batch of a hundred that reverts, and in one more for each time that a reorganization took
/// somebody else's payment back.
const N_ALONE_MAX: i32 = 3;
const N_TRANSACTIONS_MAX: i32 = 12;

impl<'a> Case<'a> {
    /// I3: whatever the network saw of our wallets is in the books, and was there before.
    pub(super) fn everything_sent_was_stored(&mut self) {
        let attempts = self.attempts();
        for sent in &self.run.sent {
            let Some(attempt) = attempts.get(&sent.hash) else {
                self.wrong("I3", format!("sent and not in the books: {}", sent.hash));
                continue;
            };
            let is_earlier = attempt.created_ms <= sent.at_ms && sent.was_stored != Some(false);
            if attempt.raw != sent.raw || !is_earlier {
                self.wrong("I3", format!("sent before it was stored: {}", sent.hash));
            }
        }
        let orphaned = self.run.orphaned.iter().flat_map(|block| &block.transactions);
        for mined in self.canonical().into_iter().chain(orphaned) {
            if self.run.balances_wei.contains_key(&mined.sender)
                && !attempts.contains_key(&mined.hash)
            {
                self.wrong("I3", format!("mined and not in the books: {}", mined.hash));
            }
        }
    }

    /// I4: each account nonce below the next is one transaction's, and the one that the chain used.
    pub(super) fn account_nonces_are_dense(&mut self) {
        let attempts = self.attempts();
        for wallet in &self.run.books.wallets {
            let of_wallet = self.run.books.transactions.iter().filter(|t| t.wallet == wallet.id);
            let mut used: Vec<u64> = of_wallet.clone().map(|t| t.account_nonce).collect();
            used.sort_unstable();
            // Every wallet of a run begins with it.
            if !used.iter().copied().eq(0..wallet.next_account_nonce) {
                let what = format!("{wallet:?} has used the account nonces {used:?}");
                self.wrong("I4", what);
            }
            if wallet.status != "active" {
                self.wrong("I4", format!("nobody touched its key, and it stands so: {wallet:?}"));
            }
            let by_nonce: HashMap<u64, &Transaction> =
                of_wallet.map(|t| (t.account_nonce, t)).collect();
            for mined in self.canonical().into_iter().filter(|m| m.sender == wallet.address) {
                let transaction = by_nonce.get(&mined.account_nonce).copied();
                let attempt = attempts.get(&mined.hash);
                let is_known = transaction.zip(attempt).is_some_and(|(transaction, attempt)| {
                    attempt.transaction == transaction.id
                        && transaction.mined_hash == Some(mined.hash)
                        && matches!(transaction.status.as_str(), "mined" | "finalized")
                });
                if !is_known {
                    let (hash, nonce) = (mined.hash, mined.account_nonce);
                    let what =
                        format!("{hash} used account nonce {nonce}, the books: {transaction:?}");
                    self.wrong("I4", what);
                }
            }
        }
    }

    /// I9: epochs rise with account nonces and do not pass the lease's.
    pub(super) fn epochs_rise(&mut self) {
        for wallet in &self.run.books.wallets {
            let mut of_wallet: Vec<&Transaction> =
                self.run.books.transactions.iter().filter(|t| t.wallet == wallet.id).collect();
            of_wallet.sort_by_key(|transaction| transaction.account_nonce);
            let lease = self.run.books.epochs.get(&format!("wallet:{}", wallet.id)).copied();
            let is_past = of_wallet.last().is_some_and(|last| Some(last.epoch) > lease);
            if is_past || !of_wallet.is_sorted_by_key(|transaction| transaction.epoch) {
                let epochs: Vec<i64> = of_wallet.iter().map(|t| t.epoch).collect();
                let what = format!("wallet {} stored under {epochs:?}, lease {lease:?}", wallet.id);
                self.wrong("I9", what);
            }
        }
    }

    /// I10: no settlement takes transactions without end, no offer passes its limit, the gas accounts
    /// hold what the chain took, and the wallets lost that and nothing else.
    pub(super) fn gas_is_bounded_and_accounted_for(&mut self) {
        for settlement in &self.run.books.settlements {
            if settlement.n_alone > N_ALONE_MAX || settlement.n_transactions > N_TRANSACTIONS_MAX {
                let n = settlement.n_transactions;
                let what = format!("{n} transactions carried it, {} alone", settlement.n_alone);
                self.wrong_with("I10", settlement.id, what);
            }
        }
        for attempt in &self.run.books.attempts {
            if attempt.gas_limit > TRANSACTION_GAS_MAX || attempt.fee_wei_max > FEE_WEI_MAX {
                self.wrong("I10", format!("an offer past its limits: {}", attempt.hash));
            }
        }
        let mut spent: BTreeMap<Address, U256> = BTreeMap::new();
        for mined in self.canonical() {
            *spent.entry(mined.sender).or_default() += mined.fee_wei;
        }
        for (address, (before, after)) in &self.run.balances_wei {
            let spent = spent.get(address).copied().unwrap_or_default();
            if before.checked_sub(*after) != Some(spent) {
                let what = format!("{address} went from {before} to {after}, and spent {spent}");
                self.wrong("I10", what);
            }
        }
        self.gas_accounts_are_right();
    }

    fn gas_accounts_are_right(&mut self) {
        let mut booked: BTreeMap<i64, (U256, U256)> = BTreeMap::new();
        for entry in self.run.books.entries.iter().filter(|entry| entry.is_gas) {
            let sums = booked.entry(entry.transaction.unwrap_or_default()).or_default();
            let sum = if entry.kind == "post" { &mut sums.0 } else { &mut sums.1 };
            *sum += entry.amount;
        }
        let fees: HashMap<B256, U256> =
            self.canonical().into_iter().map(|mined| (mined.hash, mined.fee_wei)).collect();
        for transaction in &self.run.books.transactions {
            // What carries nobody, like a deployment, is on nobody's account.
            if transaction.settlements.is_empty() {
                continue;
            }
            let fee = transaction.mined_hash.and_then(|hash| fees.get(&hash).copied());
            let (posted, reversed) = booked.get(&transaction.id).copied().unwrap_or_default();
            if posted.checked_sub(reversed) != Some(fee.unwrap_or_default()) {
                let what =
                    format!("{transaction:?} cost {fee:?}, posted {posted}, reversed {reversed}");
                self.wrong("I10", what);
            }
        }
    }

    fn attempts(&self) -> HashMap<B256, &'a Attempt> {
        self.run.books.attempts.iter().map(|attempt| (attempt.hash, attempt)).collect()
    }

    fn canonical(&self) -> Vec<&'a Mined> {
        self.run.blocks.iter().flat_map(|block| &block.transactions).collect()
    }
}
