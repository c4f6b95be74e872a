//! `engine/dispatcher.rs` in its order of operations, against the model world: what is open is
//! looked after, then what waits is signed for, stored, and sent.

use std::collections::BTreeMap;

use alloy::primitives::Address;

use crate::{
    chain::SendAnswer,
    domain::{SettlementId, SettlementStatus},
    engine::{
        desk::Sending,
        policy::{
            batch::{Room, Waiting, plan},
            fees::{self, FeeLimits, Fees},
            gas::{CANCEL_GAS_LIMIT, ITEM_GAS_CAP},
            nonce::{NonceFacts, NonceFinding, judge},
            stuck::{Remedy, Stuck, remedy},
            verdict::Verdict,
        },
        store::{OpenTransaction, Purpose, Queued, Tip, WalletStatus},
    },
    ledger::{Proof, Settlement},
};

use super::{
    books::{Attempt, Lease},
    chain::{Envelope, SAFE_DEPTH},
    examination::examine,
    token::Call,
    world::{Shared, Trouble, commit, outside, wallet_address},
};

const N_IN_FLIGHT_MAX: usize = 4;
const N_TOGETHER_MAX: usize = 3;
const LIMITS: FeeLimits =
    FeeLimits { fee_wei_max: 1_000_000_000, priority_fee_wei_max: 200_000_000 };
const ITEM_BYTES: usize = 600;

/// What a wallet's loop remembers between its steps; a crash forgets it.
#[derive(Debug)]
pub(super) struct Desk {
    wallet: usize,
    lease: Lease,
    sendings: BTreeMap<i64, Sending>,
    /// The height at which the account was looked at last.
    account_height: Option<u64>,
    is_in_doubt: bool,
}

/// What a step is about, read at its beginning and kept current.
struct Step {
    status: WalletStatus,
    next_account_nonce: u64,
    open: Vec<OpenTransaction>,
    head: Tip,
}

impl Desk {
    pub(super) const fn new(wallet: usize, lease: Lease) -> Self {
        let sendings = BTreeMap::new();
        Self { wallet, lease, sendings, account_height: None, is_in_doubt: false }
    }

    fn address(&self) -> Address {
        wallet_address(self.wallet)
    }

    fn note(&mut self, open: &OpenTransaction, height: u64, answer: SendAnswer) {
        let first_height = match self.sendings.get(&open.transaction_id) {
            Some(sending) if sending.hash == open.hash => sending.first_height.min(height),
            _ => height,
        };
        let sending = Sending { hash: open.hash, first_height, last_height: height, answer };
        self.sendings.insert(open.transaction_id, sending);
    }

    fn is_due(&self, open: &OpenTransaction, height: u64) -> bool {
        let sending = self.sendings.get(&open.transaction_id);
        sending.is_none_or(|sent| sent.last_height != height || sent.hash != open.hash)
    }
}

pub(super) async fn dispatch(world: &Shared, desk: &mut Desk) -> Result<(), Trouble> {
    let (status, next_account_nonce, head) = outside(world, |world| {
        let wallet = &world.books.wallets[desk.wallet];
        (wallet.status, wallet.next_account_nonce, world.books.head)
    })
    .await;
    let Some(head) = head else { return Ok(()) };
    let open = outside(world, |world| world.books.open_transactions(desk.wallet)).await;
    desk.sendings.retain(|id, _| open.iter().any(|open| open.transaction_id == *id));
    let mut step = Step { status, next_account_nonce, open, head };
    let is_unknown = |seen: u64| seen != head.number && !step.open.is_empty();
    if desk.account_height.is_none_or(is_unknown) {
        inspect(world, desk, &step).await?;
    }
    attend(world, desk, &mut step).await?;
    if step.status == WalletStatus::Active && !desk.is_in_doubt {
        send_waiting(world, desk, &mut step).await?;
    }
    Ok(())
}

async fn inspect(world: &Shared, desk: &mut Desk, step: &Step) -> Result<(), Trouble> {
    let address = desk.address();
    let at_head = outside(world, |world| {
        let mined = world.chain.blocks.get(&step.head.hash);
        mined.map(|mined| mined.state.account_nonce(address))
    });
    let mut facts = NonceFacts {
        next: step.next_account_nonce,
        lowest_open: step.open.first().map(|open| open.account_nonce),
        at_head: at_head.await.ok_or(Trouble::Node("unknown block"))?,
        at_safe: None,
    };
    let mut finding = judge(facts);
    if finding == NonceFinding::Suspect {
        facts.at_safe = outside(world, |world| {
            Some(world.chain.below_head(SAFE_DEPTH).state.account_nonce(address))
        })
        .await;
        finding = judge(facts);
    }
    if let NonceFinding::Foreign(account_nonce) = finding {
        let (wallet, head) = (desk.wallet, step.head);
        commit(world, desk.lease, |books| {
            if !books.hold_tip(head) {
                return Ok(None);
            }
            books.wallets[wallet].status = WalletStatus::Quarantined;
            for settlement_id in books.mark_foreign(wallet, account_nonce) {
                books.requeue(settlement_id)?;
            }
            Ok(Some(()))
        })
        .await?;
    }
    desk.is_in_doubt = finding != NonceFinding::Ours;
    desk.account_height = (!desk.is_in_doubt).then_some(step.head.number);
    Ok(())
}

async fn attend(world: &Shared, desk: &mut Desk, step: &mut Step) -> Result<(), Trouble> {
    let height = step.head.number;
    if step.open.iter().all(|open| !desk.is_due(open, height)) {
        return Ok(());
    }
    let market = outside(world, |world| world.chain.fee_facts()).await;
    let first = step.open.first().map(|open| open.transaction_id);
    for open in step.open.iter_mut().filter(|open| desk.is_due(open, height)) {
        let sending = desk.sendings.get(&open.transaction_id);
        let stuck = Stuck {
            n_blocks: sending.map_or(0, |sending| height.saturating_sub(sending.first_height)),
            is_first: first == Some(open.transaction_id),
            is_cancelled: open.is_cancelled,
            is_useless: open.is_useless,
            offered: open.offered,
            answer: sending.map(|sending| &sending.answer),
        };
        match remedy(stuck, market, LIMITS) {
            Remedy::Resend | Remedy::AtLimit => (),
            Remedy::Bump(fees) => replace(world, desk, open, fees, open.is_cancelled).await?,
            Remedy::Cancel(fees) => replace(world, desk, open, fees, true).await?,
        }
    }
    let due: Vec<OpenTransaction> =
        step.open.iter().filter(|open| desk.is_due(open, height)).cloned().collect();
    for open in due {
        let envelope = outside(world, |world| world.books.attempt(open.hash).cloned()).await;
        let envelope = envelope.ok_or(Trouble::Database)?;
        let answer = outside(world, |world| world.send(&envelope)).await;
        desk.note(&open, height, answer);
    }
    Ok(())
}

/// Stores another attempt of an open transaction, to be sent next.
async fn replace(
    world: &Shared,
    desk: &Desk,
    open: &mut OpenTransaction,
    fees: Fees,
    cancels: bool,
) -> Result<(), Trouble> {
    let (calls, gas_limit) = if cancels {
        (Vec::new(), CANCEL_GAS_LIMIT)
    } else {
        let id = open.transaction_id;
        outside(world, |world| {
            let payload = world.books.payload_of(id);
            (payload.calls.clone(), payload.gas_limit)
        })
        .await
    };
    let envelope = Envelope::sign(desk.address(), open.account_nonce, fees, gas_limit, calls);
    let hash = envelope.hash;
    let stored = commit(world, desk.lease, |books| {
        let attempt = Attempt { envelope, is_cancellation: cancels };
        Ok(books.store_attempt(open.transaction_id, attempt).then_some(()))
    });
    if stored.await?.is_some() {
        (open.hash, open.offered, open.gas_limit) = (hash, fees, gas_limit);
        open.is_cancelled = cancels;
    }
    Ok(())
}

async fn send_waiting(world: &Shared, desk: &mut Desk, step: &mut Step) -> Result<(), Trouble> {
    loop {
        let n_free = N_IN_FLIGHT_MAX.saturating_sub(step.open.len());
        let n_retrying = step.open.iter().filter(|open| open.is_retry).count();
        let room = Room {
            n_together_max: N_TOGETHER_MAX,
            n_transactions: n_free,
            n_retries: 1_usize.saturating_sub(n_retrying),
            caps_items: true,
        };
        if n_free == 0 {
            return Ok(());
        }
        let (queued, settlements) = outside(world, |world| {
            let now = world.now;
            let queued = world.books.reserve(room.n_together_max, room.n_retries > 0, now);
            let read =
                |queued: &Queued| world.books.settlements[&queued.settlement_id].settlement.clone();
            let settlements: Vec<Settlement> = queued.iter().map(read).collect();
            (queued, settlements)
        })
        .await;
        if queued.is_empty() {
            return Ok(());
        }
        let n_queued = queued.len();
        let ids: Vec<SettlementId> = queued.iter().map(|queued| queued.settlement_id).collect();
        let waiting = queued.into_iter().zip(settlements).collect();
        let sent = send_reserved(world, desk, step, room, waiting).await;
        let n_sent = *sent.as_ref().unwrap_or(&0);
        if n_sent < n_queued {
            outside(world, |world| world.books.unreserve(&ids)).await;
        }
        sent?;
        if n_sent == 0 || n_queued < room.n_together_max {
            return Ok(());
        }
    }
}

async fn send_reserved(
    world: &Shared,
    desk: &mut Desk,
    step: &mut Step,
    room: Room,
    waiting: Vec<(Queued, Settlement)>,
) -> Result<usize, Trouble> {
    let payable = sieve(world, desk, waiting).await?;
    let waiting: Vec<Waiting> = payable
        .iter()
        .map(|(queued, _)| Waiting {
            n_together_max: queued.n_together_max,
            runs_code: false,
            n_bytes: ITEM_BYTES,
            gas: ITEM_GAS_CAP,
        })
        .collect();
    let mut n_sent = 0;
    for batch in plan(&waiting, room) {
        let carried: Vec<&Settlement> = batch.items.iter().map(|i| &payable[*i].1).collect();
        let purpose = if batch.is_apart() { Purpose::Retry } else { Purpose::Pay };
        if !send_batch(world, desk, step, &carried, purpose).await? {
            break;
        }
        n_sent += carried.len();
    }
    Ok(n_sent)
}

/// Signs, stores and sends one transaction. `false` if it was not stored: nothing was sent then.
async fn send_batch(
    world: &Shared,
    desk: &mut Desk,
    step: &mut Step,
    carried: &[&Settlement],
    purpose: Purpose,
) -> Result<bool, Trouble> {
    let market = outside(world, |world| world.chain.fee_facts()).await;
    let fees = fees::offer(market, LIMITS).map_err(|_| Trouble::Node("fees are too high"))?;
    let account_nonce = step.next_account_nonce;
    let calls = carried.iter().map(|settlement| Call::Transfer(settlement.authorization)).collect();
    let gas_limit = ITEM_GAS_CAP * u64::try_from(carried.len()).expect("batches are small");
    let envelope = Envelope::sign(desk.address(), account_nonce, fees, gas_limit, calls);
    let ids: Vec<SettlementId> = carried.iter().map(|s| s.settlement_id).collect();
    let stored = envelope.clone();
    let stored = commit(world, desk.lease, |books| {
        let Some(transaction_id) = books.store_transaction(desk.wallet, stored, purpose, &ids)
        else {
            return Ok(None);
        };
        Ok(books.submit(&ids)?.then_some(transaction_id))
    });
    let Some(transaction_id) = stored.await? else { return Ok(false) };
    step.next_account_nonce = account_nonce + 1;
    let open = OpenTransaction {
        transaction_id: i64::try_from(transaction_id).expect("transactions are few"),
        account_nonce,
        hash: envelope.hash,
        gas_limit,
        is_cancelled: false,
        offered: fees,
        is_retry: purpose == Purpose::Retry,
        is_useless: false,
    };
    step.open.push(open.clone());
    let answer = outside(world, |world| world.send(&envelope)).await;
    desk.note(&open, step.head.number, answer);
    Ok(true)
}

/// Keeps what can be paid now. What was verified a moment ago is trusted.
async fn sieve(
    world: &Shared,
    desk: &Desk,
    waiting: Vec<(Queued, Settlement)>,
) -> Result<Vec<(Queued, Settlement)>, Trouble> {
    let stale = waiting.iter().filter(|(queued, _)| !queued.is_fresh);
    let stale: Vec<Call> = stale.map(|(_, s)| Call::Transfer(s.authorization)).collect();
    let succeeds = match stale.len() {
        0 => return Ok(waiting),
        1 => vec![false],
        _ => {
            outside(world, |world| {
                let head = world.chain.head();
                head.state.try_calls(&stale, head.block.timestamp)
            })
            .await
        }
    };
    let mut tried = succeeds.into_iter();
    let mut payable = Vec::with_capacity(waiting.len());
    for (queued, settlement) in waiting {
        let is_trusted = queued.is_fresh || tried.next() == Some(true);
        if is_trusted || is_still_payable(world, desk, &settlement).await? {
            payable.push((queued, settlement));
        }
    }
    Ok(payable)
}

/// Looks at an old claim once more before it is signed for. What proves it paid or unpayable is
/// written; what cannot be told is left for later.
async fn is_still_payable(
    world: &Shared,
    desk: &Desk,
    settlement: &Settlement,
) -> Result<bool, Trouble> {
    let id = settlement.settlement_id;
    let postpone = || outside(world, |world| world.books.postpone(id, world.now));
    let tip = outside(world, |world| world.books.head).await;
    let tip = tip.filter(|tip| tip.number >= settlement.verified_block);
    let block = outside(world, |world| {
        let tip = tip?;
        let mined = world.chain.block_at(tip.number).filter(|at| at.block.hash == tip.hash)?;
        Some(mined.block.clone())
    })
    .await;
    let verdict = match block {
        Some(block) => examine(world, settlement, &block).await.ok(),
        None => None,
    };
    let written = match verdict {
        Some(Verdict::Payable) => return Ok(true),
        Some(Verdict::Refused(refusal)) => {
            commit(world, desk.lease, |books| {
                Ok(books.fail(id, &[SettlementStatus::Claimed], &refusal)?.then_some(()))
            })
            .await?
        }
        Some(Verdict::Paid(evidence)) => {
            commit(world, desk.lease, |books| {
                let proof = Proof { settlement_id: id, evidence, by_us: false };
                let is_written = books.is_canonical(&evidence) && books.include(&[proof])? > 0;
                Ok(is_written.then_some(()))
            })
            .await?
        }
        Some(Verdict::NotNow(_)) | None => None,
    };
    if written.is_none() {
        postpone().await;
    }
    Ok(false)
}
