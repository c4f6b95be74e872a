//! A wallet's loop: looks after what is open, and puts what waits into transactions.
//!
//! Account nonce and signature are made at the moment of sending, so waiting settlements hold no
//! nonce and leave no gap. An idle wallet sends at once; what arrives while it is at work, or while
//! every place is taken, shares the next transaction. No receipt is ever waited for here.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Duration,
};

use alloy::primitives::{Address, B256, Bytes, U256};
use futures_util::{FutureExt, future::join_all};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{
        BatchCall, BlockId, BlockNumberOrTag, Carrier, FeeFacts, SendAnswer, TRANSFER_GAS_LIMIT,
        settler_deployment,
    },
    db::During,
    domain::{PayerKind, SettlementId},
    faults::{Defect, crash_point, has_defect, panic_point},
    ledger::{self, Settlement},
    telemetry::causes,
};

use super::{
    Engine, EngineError,
    calls::calls_of,
    desk::{Account, Desk, Hold, Market},
    outcomes,
    policy::{
        batch::{Room, Waiting, company_after, plan},
        fees::{self, Fees},
        gas::{
            CANCEL_GAS_LIMIT, batch_gas_limit, call_gas_limit, deploy_gas_limit, full_transactions,
            item_gas,
        },
        nonce::{NonceFacts, NonceFinding, judge},
        stuck::{Remedy, Stuck, remedy},
    },
    store::{
        self, NewTransaction, OpenTransaction, Purpose, Queued, Tip, WalletStatus, WalletView,
    },
    wallet::{Call, Signed, call_of},
};

/// How often the wallet looks for work without being woken: notifications can be lost.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the wallet rests after trouble.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long a settlement that cannot be paid now is left alone at least.
pub(super) const NOT_NOW_DELAY: Duration = Duration::from_secs(2);
/// How old our knowledge of the fee market may be.
const MARKET_AGE_MAX: Duration = Duration::from_secs(1);
/// How old our knowledge of an idle wallet's account may be.
const ACCOUNT_AGE_MAX: Duration = Duration::from_secs(30);
/// Which part of the places may carry what was left unpaid before: one in four.
const RETRY_PLACES_DIVISOR: usize = 4;
/// For how many blocks' worth of full transactions a wallet should hold gas; below it, people are told.
const GAS_RESERVE_TRANSACTIONS: u64 = 100;

/// Something to be sent, signed but not stored.
struct Draft {
    to: Address,
    data: Bytes,
    gas_limit: u64,
    purpose: Purpose,
    settlement_ids: Vec<SettlementId>,
}

/// What became of a batch.
enum Sent {
    /// It was stored and handed over.
    Yes,
    /// It could not even be encoded. Its settlements travel apart from now on.
    SetApart,
    /// Nothing of it was stored: the wallet cannot send now.
    NotNow,
}

/// What a step is about, read at its beginning and kept current.
struct Step {
    view: WalletView,
    open: Vec<OpenTransaction>,
    /// The applied head.
    tip: Tip,
}

impl Engine {
    /// Works with a wallet until its lease is lost, or `stop`.
    pub(super) async fn work_at(&self, desk: &mut Desk, stop: &CancellationToken) {
        let mut work = self.work.subscribe();
        while !stop.is_cancelled() {
            work.mark_unchanged();
            let step = AssertUnwindSafe(Self::bounded(self.dispatch(desk))).catch_unwind();
            let pause = match step.await.unwrap_or(Err(EngineError::Panicked)) {
                Ok(()) => match &desk.hold {
                    None => {
                        self.health.wallet_succeeded(desk.wallet_id);
                        POLL_INTERVAL
                    }
                    Some(hold) => {
                        self.health.wallet_failed(desk.wallet_id, hold.why().to_owned());
                        POLL_INTERVAL
                    }
                },
                Err(EngineError::LeaseLost { .. }) => return,
                Err(error) => {
                    self.health.wallet_failed(desk.wallet_id, error.to_string());
                    tracing::warn!(
                        error = causes(&error),
                        chain.id = %self.chain.chain_id(),
                        wallet.address = %desk.wallet.address(),
                        "a wallet could not go on"
                    );
                    RETRY_INTERVAL
                }
            };
            tokio::select! {
                () = stop.cancelled() => (),
                // The sender lives as long as the engine.
                _ = work.changed() => (),
                () = tokio::time::sleep(pause) => (),
            }
        }
    }

    /// Looks after what is open, then signs for what waits, while places are free.
    async fn dispatch(&self, desk: &mut Desk) -> Result<(), EngineError> {
        let mut conn = self.pool.acquire().await.during("read open transactions")?;
        // The head first: what is open is then as new as the head, or newer.
        let view = store::wallet_view(&mut conn, desk.wallet_id).await?;
        // Following starts at the newest block: what was mined before it is never read.
        let Some(tip) = view.head else { return Ok(()) };
        let open = store::open_transactions(&mut conn, desk.wallet_id).await?;
        drop(conn);
        desk.forget_all_but(&open);
        let mut step = Step { view, open, tip };
        let is_unknown = |account: Account| {
            account.seen_at.elapsed() > ACCOUNT_AGE_MAX
                || (account.height != tip.number && !step.open.is_empty())
        };
        if desk.account.is_none_or(is_unknown) {
            self.inspect(desk, &step).await?;
        }
        if !step.open.is_empty() {
            self.attend(desk, &mut step).await?;
        }
        let is_in_doubt = matches!(desk.hold, Some(Hold::Doubt(_)));
        match step.view.status {
            WalletStatus::Active if !is_in_doubt => self.send_waiting(desk, &mut step).await?,
            WalletStatus::Draining if step.open.is_empty() => self.retire(desk).await?,
            WalletStatus::Retired if step.open.is_empty() => return Err(desk.is_given_up()),
            _ => (),
        }
        let label = desk.wallet.address().to_string();
        metrics::gauge!("quittance_wallet_in_flight", "wallet" => label)
            .set(u32::try_from(step.open.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Looks at the account on chain: are its nonces ours, and can it pay?
    async fn inspect(&self, desk: &mut Desk, step: &Step) -> Result<(), EngineError> {
        let address = desk.wallet.address();
        // By hash: the books are of that block. Another of its height may hold what is open here.
        let at_head = self.chain.account_nonce_at(address, BlockId::hash(step.tip.hash)).await?;
        let balance_wei = self.chain.balance_wei(address).await?;
        let (seen_at, height) = (Instant::now(), step.tip.number);
        let mut facts = NonceFacts {
            next: step.view.next_account_nonce,
            lowest_open: step.open.first().map(|open| open.account_nonce),
            at_head,
            at_safe: None,
        };
        let mut finding = judge(facts);
        if finding == NonceFinding::Suspect {
            facts.at_safe =
                self.chain.account_nonce_agreed(address, BlockNumberOrTag::Safe).await?;
            finding = judge(facts);
        }
        desk.hold = match finding {
            NonceFinding::Ours => {
                desk.hold.take().filter(|hold| matches!(hold, Hold::ShortOfGas(_)))
            }
            NonceFinding::Suspect => {
                tracing::error!(
                    wallet.address = %address, account_nonce = at_head,
                    "an account nonce was used by bytes that are not ours, as the head shows; waiting for the safe head"
                );
                Some(Hold::Doubt(format!("the key of wallet {address} seems to be used elsewhere")))
            }
            NonceFinding::Foreign(account_nonce) => {
                self.quarantine(desk, step, account_nonce).await?;
                Some(Hold::Doubt(format!("the key of wallet {address} is used elsewhere")))
            }
        };
        // While in doubt, it is looked at again with every step.
        let is_known = !matches!(desk.hold, Some(Hold::Doubt(_)));
        desk.account = is_known.then_some(Account { seen_at, height, balance_wei });
        Ok(())
    }

    /// Somebody else sends from the wallet: it signs nothing more until a person has looked. What its
    /// lost transactions carried is paid from another wallet, after another look at the chain.
    async fn quarantine(
        &self,
        desk: &Desk,
        step: &Step,
        account_nonce: u64,
    ) -> Result<(), EngineError> {
        let status = step.view.status;
        let is_at_work = match status {
            WalletStatus::Active | WalletStatus::Paused | WalletStatus::Draining => true,
            WalletStatus::Retired | WalletStatus::Quarantined => false,
        };
        if !is_at_work && step.open.iter().all(|open| open.account_nonce >= account_nonce) {
            // It is known.
            return Ok(());
        }
        let reason =
            format!("account nonces below {account_nonce} were used by bytes that are not ours");
        let mut db = self.pool.begin().await.during("quarantine a wallet")?;
        desk.lease.hold(&mut db).await?;
        if !store::hold_tip(&mut db, self.chain.chain_id(), step.tip).await? {
            // What was found is of another block: the next step looks again.
            return Ok(());
        }
        let to = WalletStatus::Quarantined;
        // From the status that was judged alone: an operator may have ended the quarantine meanwhile,
        // and skipped the nonces that speak for it.
        if is_at_work
            && !store::set_wallet_status(&mut db, desk.wallet_id, &[status], to, Some(&reason))
                .await?
        {
            return Ok(());
        }
        let carried = store::mark_foreign(&mut db, desk.wallet_id, account_nonce).await?;
        for settlement_id in &carried {
            ledger::requeue(&mut db, *settlement_id, "its account nonce was used elsewhere")
                .await?;
        }
        outcomes::announce(&mut db, self.chain.chain_id()).await?;
        db.commit().await.during("quarantine a wallet")?;
        tracing::error!(
            wallet.address = %desk.wallet.address(), n_settlements = carried.len(), reason,
            "a wallet is quarantined"
        );
        metrics::counter!("quittance_wallet_quarantines_total").increment(1);
        Ok(())
    }

    async fn retire(&self, desk: &Desk) -> Result<(), EngineError> {
        let mut db = self.pool.begin().await.during("retire a wallet")?;
        desk.lease.hold(&mut db).await?;
        let (from, to) = ([WalletStatus::Draining], WalletStatus::Retired);
        store::set_wallet_status(&mut db, desk.wallet_id, &from, to, Some("drained")).await?;
        db.commit().await.during("retire a wallet")?;
        tracing::info!(wallet.address = %desk.wallet.address(), "a wallet is drained");
        Err(desk.is_given_up())
    }

    /// What the fee market asks, asked once a block.
    async fn market(&self, desk: &mut Desk, height: u64) -> Result<FeeFacts, EngineError> {
        let is_new =
            |market: &Market| market.height == height && market.seen_at.elapsed() < MARKET_AGE_MAX;
        if let Some(market) = desk.market.filter(is_new) {
            return Ok(market.asks);
        }
        let asks = self.chain.fee_facts().await?;
        desk.market = Some(Market { seen_at: Instant::now(), height, asks });
        Ok(asks)
    }

    /// Sends everything open again that was not sent since the last block, with a better offer
    /// where it needs one. In the order of account nonces.
    async fn attend(&self, desk: &mut Desk, step: &mut Step) -> Result<(), EngineError> {
        let height = step.tip.number;
        let is_due = |desk: &Desk, open: &OpenTransaction| {
            desk.sendings
                .get(&open.transaction_id)
                .is_none_or(|sending| sending.last_height != height || sending.hash != open.hash)
        };
        if step.open.iter().all(|open| !is_due(desk, open)) {
            return Ok(());
        }
        self.expect_blocks();
        let market = self.market(desk, height).await?;
        let first = step.open.first().map(|open| open.transaction_id);
        for open in step.open.iter_mut().filter(|open| is_due(desk, open)) {
            let sending = desk.sendings.get(&open.transaction_id);
            let stuck = Stuck {
                n_blocks: sending.map_or(0, |sending| height.saturating_sub(sending.first_height)),
                is_first: first == Some(open.transaction_id),
                is_cancelled: open.is_cancelled,
                is_useless: open.is_useless,
                offered: open.offered,
                answer: sending.map(|sending| &sending.answer),
            };
            match remedy(stuck, market, self.options.fee_limits) {
                Remedy::Resend => (),
                Remedy::AtLimit => tracing::error!(
                    transaction.hash = %open.hash, fee_wei_max = open.offered.fee_wei_max,
                    "a transaction needs a better offer than the limit allows"
                ),
                Remedy::Bump(fees) => self.replace(desk, open, fees, false).await?,
                Remedy::Cancel(fees) => self.replace(desk, open, fees, true).await?,
            }
        }
        let is_replaced = |open: &OpenTransaction| {
            desk.sendings.get(&open.transaction_id).is_some_and(|sent| sent.hash != open.hash)
        };
        let is_any_replaced = step.open.iter().any(is_replaced);
        let due: Vec<&OpenTransaction> =
            step.open.iter().filter(|open| is_due(desk, open)).collect();
        let mut conn = self.pool.acquire().await.during("read attempts to send again")?;
        let mut raws = Vec::with_capacity(due.len());
        for open in &due {
            raws.push(store::raw_attempt(&mut conn, open.hash).await?);
        }
        drop(conn);
        let sends = due.iter().zip(&raws).map(|(open, raw)| self.hand_over(open.hash, raw));
        let mut answers = join_all(sends).await;
        // They overtake each other on their way, and there are nodes that take no gaps: what came too
        // early goes once more, one after the other.
        for ((open, raw), answer) in due.iter().zip(&raws).zip(&mut answers) {
            if *answer == SendAnswer::NonceTooHigh {
                *answer = self.hand_over(open.hash, raw).await;
            }
        }
        if is_any_replaced {
            crash_point("bump.after_send");
        }
        for (open, answer) in due.iter().zip(answers) {
            desk.note(open.transaction_id, open.hash, height, answer);
        }
        Ok(())
    }

    /// Stores another attempt of an open transaction, to be sent next.
    async fn replace(
        &self,
        desk: &Desk,
        open: &mut OpenTransaction,
        fees: Fees,
        cancels: bool,
    ) -> Result<(), EngineError> {
        let cancels = cancels || open.is_cancelled;
        let (to, data, gas_limit) = if cancels {
            (desk.wallet.address(), Bytes::new(), CANCEL_GAS_LIMIT)
        } else {
            let mut conn = self.pool.acquire().await.during("read what to replace")?;
            call_of(&store::payload_of(&mut conn, open.transaction_id).await?)?
        };
        let signed = desk.wallet.sign(&Call {
            chain_id: self.chain.chain_id(),
            account_nonce: open.account_nonce,
            to,
            data,
            gas_limit,
            fees,
        })?;
        let mut db = self.pool.begin().await.during("store another attempt")?;
        desk.lease.hold(&mut db).await?;
        let is_open =
            store::store_attempt(&mut db, open.transaction_id, &signed, fees, gas_limit, cancels)
                .await?;
        if !is_open {
            return Ok(());
        }
        db.commit().await.during("store another attempt")?;
        crash_point("bump.after_commit");
        tracing::info!(
            transaction.hash = %signed.hash, replaced = %open.hash,
            account_nonce = open.account_nonce, fee_wei_max = fees.fee_wei_max, cancels,
            "stored a better offer"
        );
        metrics::counter!("quittance_replacements_total", "kind" => if cancels { "cancel" } else { "bump" })
            .increment(1);
        open.hash = signed.hash;
        open.offered = fees;
        open.gas_limit = gas_limit;
        open.is_cancelled = cancels;
        Ok(())
    }

    /// Gives bytes that are stored to the network, and notes for people what it said.
    async fn hand_over(&self, hash: B256, raw: &[u8]) -> SendAnswer {
        crash_point("send.before");
        let report = self.chain.send(hash, raw).await;
        crash_point("send.after");
        let answer = report.telling().clone();
        if !report.is_acknowledged() {
            tracing::warn!(transaction.hash = %hash, %answer, "a send was not acknowledged");
        }
        crash_point("note.before");
        let noted = async {
            let mut conn = self.pool.acquire().await.during("note a send")?;
            store::note_sent(&mut conn, hash, &answer.to_string()).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(error = causes(&error), "could not note what a node answered");
        }
        answer
    }

    /// Puts what waits into transactions until nothing waits or every place is taken.
    async fn send_waiting(&self, desk: &mut Desk, step: &mut Step) -> Result<(), EngineError> {
        if matches!(desk.hold, Some(Hold::ShortOfGas(_))) {
            // Before anything is reserved: another wallet may be able to pay.
            let market = self.market(desk, step.tip.number).await?;
            let fees = fees::offer(market, self.options.fee_limits)?;
            if !self.can_pay(desk, step, TRANSFER_GAS_LIMIT, fees).await? {
                return Ok(());
            }
        }
        loop {
            let n_free = self.options.n_in_flight_max.saturating_sub(step.open.len());
            let n_retrying = step.open.iter().filter(|open| open.is_retry).count();
            let n_retries = (self.options.n_in_flight_max / RETRY_PLACES_DIVISOR).max(1);
            let room = Room {
                n_together_max: self.options.n_together_max,
                n_transactions: n_free,
                n_retries: n_retries.saturating_sub(n_retrying),
                caps_items: self.settler_seen_at.load(Ordering::Relaxed) != 0,
            };
            if n_free == 0 {
                return Ok(());
            }
            let mut conn = self.pool.acquire().await.during("find settlements to send")?;
            let chain_id = self.chain.chain_id();
            let (n_max, with_retries) = (room.n_together_max, room.n_retries > 0);
            let is_shared = self.is_shared.load(Ordering::Relaxed);
            let queued = if is_shared {
                store::reserve(&mut conn, chain_id, n_max, with_retries).await?
            } else {
                store::queued(&mut conn, chain_id, n_max, with_retries).await?
            };
            if queued.is_empty() {
                return Ok(());
            }
            let ids: Vec<SettlementId> = queued.iter().map(|queued| queued.settlement_id).collect();
            let settlements = ledger::settlements(&mut conn, &ids).await?;
            drop(conn);
            let sent = self.send_reserved(desk, step, room, &queued, settlements).await;
            let n_sent = sent.as_ref().map_or(0, |sent| *sent);
            if is_shared && n_sent < queued.len() {
                let mut conn = self.pool.acquire().await.during("give settlements back")?;
                store::unreserve(&mut conn, &ids).await?;
            }
            sent?;
            if n_sent == 0 || queued.len() < room.n_together_max || desk.hold.is_some() {
                return Ok(());
            }
        }
    }

    /// Sends what a wallet has reserved, and returns how many settlements it sent.
    async fn send_reserved(
        &self,
        desk: &mut Desk,
        step: &mut Step,
        mut room: Room,
        queued: &[Queued],
        settlements: Vec<Settlement>,
    ) -> Result<usize, EngineError> {
        let settlements = self.sieve(desk, queued, settlements).await?;
        let n_with_code =
            settlements.iter().filter(|(_, settlement)| settlement.runs_code()).count();
        if n_with_code > 1 && !room.caps_items {
            // Nobody has looked for the settler so long as no batch was to be carried.
            room.caps_items = self.carrier(desk, step).await? == Carrier::Settler;
            room.n_transactions = self.options.n_in_flight_max.saturating_sub(step.open.len());
        }
        let waiting: Vec<Waiting> = settlements
            .iter()
            .map(|(queued, settlement)| {
                let calls = calls_of(settlement);
                let n_bytes = calls.iter().map(BatchCall::n_bytes).sum();
                let gas = calls.iter().map(|call| item_gas(call.gas_cap, call.n_bytes())).sum();
                let n_together_max = queued.n_together_max;
                Waiting { n_together_max, runs_code: settlement.runs_code(), n_bytes, gas }
            })
            .collect();
        let mut n_sent = 0_usize;
        for batch in plan(&waiting, room) {
            let carried: Vec<&Settlement> = batch
                .items
                .iter()
                .filter_map(|index| settlements.get(*index).map(|(_, settlement)| settlement))
                .collect();
            let is_retry = batch.is_apart();
            match self.send_batch(desk, step, &carried, is_retry).await? {
                Sent::Yes => n_sent = n_sent.saturating_add(carried.len()),
                Sent::SetApart => (),
                Sent::NotNow => break,
            }
        }
        Ok(n_sent)
    }

    /// Signs, stores and sends one transaction.
    async fn send_batch(
        &self,
        desk: &mut Desk,
        step: &mut Step,
        carried: &[&Settlement],
        is_retry: bool,
    ) -> Result<Sent, EngineError> {
        let settlement_ids: Vec<SettlementId> =
            carried.iter().map(|settlement| settlement.settlement_id).collect();
        let carrier = match carried {
            [only] if only.payer_kind != PayerKind::Counterfactual => None,
            _ => Some(self.carrier(desk, step).await?),
        };
        let purpose = if is_retry { Purpose::Retry } else { Purpose::Pay };
        // A settlement that cannot even be encoded must not stop the others.
        let drafted = catch_unwind(AssertUnwindSafe(|| draft(carried, carrier, purpose)));
        let Ok(mut draft) = drafted else {
            tracing::error!(?settlement_ids, "settlements could not be encoded");
            let mut conn = self.pool.acquire().await.during("set settlements apart")?;
            if let [alone] = settlement_ids.as_slice() {
                store::postpone(&mut conn, *alone, NOT_NOW_DELAY).await?;
            } else {
                let n_together = company_after(settlement_ids.len(), true);
                store::limit_company(&mut conn, &settlement_ids, n_together).await?;
            }
            return Ok(Sent::SetApart);
        };
        if has_defect(Defect::EstimateGas) && carrier.is_some() {
            draft.gas_limit = self.chain.estimate_gas(draft.to, draft.data.clone()).await?;
        }
        let n_items = settlement_ids.len();
        draft.settlement_ids = settlement_ids;
        if !self.send_draft(desk, step, draft).await? {
            return Ok(Sent::NotNow);
        }
        metrics::histogram!("quittance_batch_items").record(u32::try_from(n_items).unwrap_or(0));
        Ok(Sent::Yes)
    }

    /// What carries a batch. Where the settler is absent and may be deployed, it is, along with this
    /// batch, which Multicall3 carries meanwhile.
    async fn carrier(&self, desk: &mut Desk, step: &mut Step) -> Result<Carrier, EngineError> {
        if self.settler_seen_at.load(Ordering::Relaxed) != 0 {
            return Ok(Carrier::Settler);
        }
        if self.chain.has_settler().await? {
            self.settler_seen_at.store(step.tip.number.max(1), Ordering::Relaxed);
            return Ok(Carrier::Settler);
        }
        let n_free = self.options.n_in_flight_max.saturating_sub(step.open.len());
        if self.options.deploys_settler && n_free > 1 {
            let mut conn = self.pool.acquire().await.during("look for a deployment")?;
            let is_deploying = store::is_deploying(&mut conn, self.chain.chain_id()).await?;
            drop(conn);
            if !is_deploying && self.chain.has_deployer().await? {
                let (to, data) = settler_deployment();
                let gas_limit = deploy_gas_limit(&data);
                let (purpose, settlement_ids) = (Purpose::Deploy, Vec::new());
                let draft = Draft { to, data, gas_limit, purpose, settlement_ids };
                self.send_draft(desk, step, draft).await?;
            }
        }
        Ok(Carrier::Multicall3)
    }

    async fn send_draft(
        &self,
        desk: &mut Desk,
        step: &mut Step,
        draft: Draft,
    ) -> Result<bool, EngineError> {
        let market = self.market(desk, step.tip.number).await?;
        let fees = fees::offer(market, self.options.fee_limits)?;
        if !self.can_pay(desk, step, draft.gas_limit, fees).await? {
            return Ok(false);
        }
        let account_nonce = step.view.next_account_nonce;
        let signed = desk.wallet.sign(&Call {
            chain_id: self.chain.chain_id(),
            account_nonce,
            to: draft.to,
            data: draft.data,
            gas_limit: draft.gas_limit,
            fees,
        })?;
        crash_point("sign.after");
        let new = NewTransaction {
            wallet_id: desk.wallet_id,
            chain_id: self.chain.chain_id(),
            account_nonce,
            signed: &signed,
            fees,
            gas_limit: draft.gas_limit,
            purpose: draft.purpose,
            epoch: desk.lease.epoch,
            settlement_ids: &draft.settlement_ids,
        };
        let Some(transaction_id) = self.store(desk, &new).await? else { return Ok(false) };
        tracing::info!(
            transaction.hash = %signed.hash, account_nonce, gas_limit = draft.gas_limit,
            n_settlements = draft.settlement_ids.len(), purpose = ?draft.purpose,
            "stored a transaction"
        );
        step.view.next_account_nonce = account_nonce.saturating_add(1);
        step.open.push(OpenTransaction {
            transaction_id,
            account_nonce,
            hash: signed.hash,
            gas_limit: draft.gas_limit,
            is_cancelled: false,
            offered: fees,
            is_retry: draft.purpose == Purpose::Retry,
            is_useless: false,
        });
        self.expect_blocks();
        if !self.is_following.load(Ordering::Relaxed) {
            self.hint.notify_one();
        }
        let Signed { hash, raw } = signed;
        let answer = self.hand_over(hash, &raw).await;
        if answer == SendAnswer::InsufficientFunds {
            // What we know of the balance is wrong.
            desk.account = None;
        }
        if has_defect(Defect::FailOnTimeout) && matches!(answer, SendAnswer::Unknown(_)) {
            self.fail_unanswered(&draft.settlement_ids).await?;
        }
        let is_forgotten = match answer {
            SendAnswer::Accepted | SendAnswer::AlreadyKnown => false,
            SendAnswer::Unknown(_) => {
                has_defect(Defect::RecycleNonce) || has_defect(Defect::ResetNonce)
            }
            _ => has_defect(Defect::ResetNonce),
        };
        if is_forgotten {
            self.forget_transaction(desk, account_nonce).await?;
        }
        desk.note(transaction_id, hash, step.tip.number, answer);
        Ok(true)
    }

    /// Whether the wallet can pay for everything open and for this. What it must hold is what nodes ask
    /// of it: every limit at its highest price.
    async fn can_pay(
        &self,
        desk: &mut Desk,
        step: &Step,
        gas_limit: u64,
        fees: Fees,
    ) -> Result<bool, EngineError> {
        let cost = |gas_limit: u64, fees: Fees| {
            U256::from(gas_limit).saturating_mul(U256::from(fees.fee_wei_max))
        };
        let committed = step
            .open
            .iter()
            .map(|open| cost(open.gas_limit, open.offered))
            .fold(U256::ZERO, U256::saturating_add);
        let needed = committed.saturating_add(cost(gas_limit, fees));
        let address = desk.wallet.address();
        let mut balance_wei = desk.account.map_or(U256::ZERO, |account| account.balance_wei);
        if balance_wei < needed {
            balance_wei = self.chain.balance_wei(address).await?;
            if let Some(account) = &mut desk.account {
                account.balance_wei = balance_wei;
            }
        }
        let left = full_transactions(balance_wei, fees);
        metrics::gauge!("quittance_wallet_transactions_left", "wallet" => address.to_string())
            .set(u32::try_from(left).unwrap_or(u32::MAX));
        if balance_wei < needed {
            let why = format!(
                "wallet {address} holds {balance_wei} wei and needs {needed} for its next transaction"
            );
            if desk.hold.is_none() {
                tracing::error!(wallet.address = %address, why, "a wallet is short of gas and pauses");
            }
            desk.hold = Some(Hold::ShortOfGas(why));
            return Ok(false);
        }
        if left < U256::from(GAS_RESERVE_TRANSACTIONS) {
            tracing::warn!(
                wallet.address = %address, %balance_wei, "a wallet runs low on gas"
            );
        }
        desk.hold = None;
        Ok(true)
    }

    /// One database transaction: the nonce, the bytes, and the settlements' state. What is signed and
    /// not stored is thrown away and was never sent.
    async fn store(
        &self,
        desk: &Desk,
        new: &NewTransaction<'_>,
    ) -> Result<Option<i64>, EngineError> {
        let mut db = self.pool.begin().await.during("store a transaction")?;
        desk.lease.hold(&mut db).await?;
        let Some(transaction_id) = store::store_transaction(&mut db, new).await? else {
            return Ok(None);
        };
        if !new.settlement_ids.is_empty()
            && !ledger::submit(&mut db, new.settlement_ids, new.signed.hash).await?
        {
            return Ok(None);
        }
        crash_point("claim.before_commit");
        db.commit().await.during("store a transaction")?;
        crash_point("claim.after_commit");
        Ok(Some(transaction_id))
    }
}

/// The call that pays `carried`: straight to the token for one, through a carrier for several.
fn draft(carried: &[&Settlement], carrier: Option<Carrier>, purpose: Purpose) -> Draft {
    for settlement in carried {
        panic_point(&settlement.authorization.nonce.as_bytes().0);
    }
    let calls: Vec<BatchCall> =
        carried.iter().flat_map(|settlement| calls_of(settlement)).collect();
    let (to, data, gas_limit) = match (calls.as_slice(), carrier) {
        ([only], None) => {
            let runs_code = carried.iter().any(|settlement| settlement.runs_code());
            let gas_limit = match runs_code {
                true => call_gas_limit(&only.data, only.gas_cap),
                false => TRANSFER_GAS_LIMIT,
            };
            (only.target, only.data.clone(), gas_limit)
        }
        (calls, carrier) => {
            let (to, data) = carrier.unwrap_or(Carrier::Settler).call(calls);
            let gas_caps: Vec<u64> = calls.iter().map(|call| call.gas_cap).collect();
            let gas_limit = batch_gas_limit(&data, &gas_caps);
            (to, data, gas_limit)
        }
    };
    Draft { to, data, gas_limit, purpose, settlement_ids: Vec::new() }
}
