//! The engine's own tables: wallets, transactions, attempts, leases, and how far each chain was read.
//!
//! Lock order everywhere: `lease`, then `wallet` or `chain_head`, then `transaction`, then `settlement`
//! by id.

mod head;
mod lease;
mod queue;
mod transaction;
mod wallet;
mod watch;

pub use transaction::latest_attempt;
pub use wallet::{WalletRow, WalletStatus, ensure_wallet, set_wallet_status, wallets};

pub(super) use head::{
    Tip, advance, applied_block, finalized_number, hold_tip, is_canonical, rewind, settle_heights,
    start_at, tip,
};
pub(super) use lease::{
    acquire_lease, count_replicas, hold_lease, leave_replicas, release_lease, renew_lease,
};
pub(super) use queue::{Queued, limit_company, postpone, queue_length, queued, reserve, unreserve};
pub(super) use transaction::{
    MinedTransaction, NewTransaction, OpenTransaction, Purpose, is_deploying, mark_foreign,
    mark_mined, note_sent, open_transactions, ours_among, payload_of, raw_attempt, reopen,
    store_attempt, store_transaction,
};
pub(super) use wallet::{WalletView, skip_account_nonces, wallet_view};
pub(super) use watch::{Unfinished, expired, settlements_of, unfinished, watched_assets};
