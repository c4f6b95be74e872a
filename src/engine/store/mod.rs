//! The engine's own tables: wallets, transactions, attempts, and how far each chain was read.
//!
//! Lock order everywhere: `wallet` or `chain_head`, then `transaction`, then `settlement` by id.

mod head;
mod transaction;
mod watch;

pub use transaction::latest_attempt;

pub(super) use head::{
    Tip, advance, applied_block, finalized_number, hold_tip, is_canonical, rewind, settle_heights,
    start_at, tip,
};
pub(super) use transaction::{
    MinedTransaction, NewTransaction, OpenTransaction, ensure_wallet, mark_mined,
    next_account_nonce, next_claimed, note_sent, open_transactions, ours_among, postpone, reopen,
    store_transaction,
};
pub(super) use watch::{Unfinished, expired, settlements_of, unfinished, watched_assets};
