//! Get this payment paid, and tell one caller so.
//!
//! Success is handed out once: if a payer replays one payment to a resource server, that server asks
//! twice, and two successes would sell two things for one payment (DESIGN.md 2.1).

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use alloy::primitives::{Address, B256, U256};
use sqlx::PgConnection;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    db::During,
    domain::{
        Depth, IdempotencyKey, PaymentRequest, Refusal, SettlementId, SettlementStatus, UnixTime,
    },
    engine::{self, Waiting},
    faults::{Defect, crash_point, has_defect},
    ledger::{self, Claim, ClaimOutcome, Settlement},
    merchants::Caller,
    verify::{repeats, statement},
};

use super::{
    Announced, Facilitator, FacilitatorError, ServedChain,
    caps::{Look, Room},
    check_allowed, check_mode,
    house::{self, Guest},
    verify::{Verdict, read_books},
};

/// How often a claim is tried whose payer's other claims came between.
const N_CLAIM_TRIES: usize = 5;
/// How many claims may be made at a time, each of another payer.
const N_TURNS: usize = 256;

/// The turns of payers: of those who wait for their payer's earlier claims, one holds a connection.
#[derive(Debug)]
pub(super) struct Turns(Vec<Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..N_TURNS).map(|_| Mutex::new(())).collect())
    }
}

impl Turns {
    /// Waits for the payer's turn. Payers may share one.
    async fn of(&self, payer: Address) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        payer.hash(&mut hasher);
        let n_turns = u64::try_from(self.0.len()).ok()?;
        let index = usize::try_from(hasher.finish().checked_rem(n_turns)?).ok()?;
        Some(self.0.get(index)?.lock().await)
    }
}

/// What came of a request to settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleOutcome {
    /// Paid, by evidence.
    Paid {
        /// The transaction of the evidence.
        transaction_hash: B256,
        /// Whether it was told before, to the same caller.
        is_replay: bool,
    },
    /// Claimed, and proven unpayable since.
    Failed {
        /// Why.
        refusal: Refusal,
        /// The transaction that tried, if one did.
        transaction_hash: Option<B256>,
        /// Whether it was told before, to the same caller.
        is_replay: bool,
    },
    /// Refused before anything was promised.
    Refused(Refusal),
    /// The payment belongs to another request.
    Duplicate {
        /// The transaction, if there is one and the caller may know.
        transaction_hash: Option<B256>,
    },
    /// Sent, and no block has told yet. The same request again takes the answer.
    Pending {
        /// The newest attempt.
        transaction_hash: B256,
    },
}

/// How a request relates to an earlier claim of the same authorization.
enum Repetition {
    /// The same request, proven by its `Idempotency-Key`.
    Proven,
    /// The same request as far as can be seen: it may take an answer that nobody was given.
    Plausible,
    /// Another request of the same merchant for the same payment.
    Duplicate,
    /// Somebody else, or other terms. Nothing is attached.
    Stranger,
}

impl Facilitator {
    /// Settles a payment and waits until its evidence stands as deep as `wait_for`, no longer than the
    /// configured wait. A repetition waits for what the claim asked for.
    ///
    /// # Errors
    /// Trouble of ours or of the merchant. The payment may have been claimed nevertheless; the same
    /// request again will tell.
    pub async fn settle(
        &self,
        caller: &Caller,
        request: &PaymentRequest,
        key: Option<&IdempotencyKey>,
        wait_for: Depth,
        now: UnixTime,
    ) -> Result<SettleOutcome, FacilitatorError> {
        let deadline = self.deadline(request);
        let allowed = check_allowed(caller, &request.requirements);
        let chain = match self.served(request.requirements.chain_id) {
            Ok(chain) => chain,
            Err(refusal) => return Ok(SettleOutcome::Refused(allowed.err().unwrap_or(refusal))),
        };
        check_mode(caller, chain)?;
        if let Some(earlier) = self.earlier_claim(caller, request, key).await? {
            return self.repeat(caller, request, key, &earlier, deadline).await;
        }
        // What was promised before it was forbidden is kept, and told.
        if let Err(refusal) = allowed {
            return Ok(SettleOutcome::Refused(refusal));
        }
        let verified = match self.verdict(chain, request, now).await? {
            Ok(verified) => verified,
            Err(refusal) => return Ok(SettleOutcome::Refused(refusal)),
        };
        chain.engine.admit()?;
        let settlement_id = SettlementId::from_uuid(Uuid::now_v7());
        // The place is taken before the promise is made: what cannot be waited for is not claimed.
        let waiting = self.outcomes.wait_for(settlement_id)?;
        let claim = Claim {
            settlement_id,
            merchant_id: caller.merchant_id,
            api_key_id: caller.api_key_id,
            idempotency_key: key.cloned(),
            wait_for,
        };
        let guest = Guest { caller, chain, verified: &verified };
        match self.claim(&claim, guest).await {
            Ok(Ok(ClaimOutcome::Claimed)) => {
                tracing::info!(settlement.id = %settlement_id, "claimed a payment");
                chain.engine.nudge();
                let asker = if key.is_some() { Asker::KeyedClaimant } else { Asker::Unproven };
                return self.wait(settlement_id, waiting, deadline, asker).await;
            }
            Ok(Ok(ClaimOutcome::Taken)) => waiting.leave(),
            Ok(Err(refusal)) => {
                waiting.leave();
                return Ok(SettleOutcome::Refused(refusal));
            }
            Err(error) => {
                waiting.leave();
                return Err(error);
            }
        }
        match self.earlier_claim(caller, request, key).await? {
            Some(earlier) => self.repeat(caller, request, key, &earlier, deadline).await,
            // The key was taken by another payment between our look and our claim.
            None => Err(FacilitatorError::IdempotencyKeyReused),
        }
    }

    /// The configured wait, or the resource server's own limit where that is shorter.
    fn deadline(&self, request: &PaymentRequest) -> Instant {
        let limit = Duration::from_secs(request.requirements.max_timeout_seconds);
        Instant::now() + self.settle_wait.min(limit)
    }

    /// The claim that this authorization has already, if any.
    ///
    /// # Errors
    /// When the `Idempotency-Key` belongs to another payment.
    async fn earlier_claim(
        &self,
        caller: &Caller,
        request: &PaymentRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Settlement>, FacilitatorError> {
        let mut conn = self.pool.acquire().await.during("look for an earlier claim")?;
        // The key is read first: an equal request may claim between the two looks, and a claim seen
        // by its key is then seen by its authorization too.
        let keyed = match key {
            Some(key) => {
                ledger::find_by_idempotency_key(&mut conn, caller.merchant_id, key).await?
            }
            None => None,
        };
        let earlier = ledger::find_by_authorization(
            &mut conn,
            &request.requirements,
            &request.payment.authorization,
        )
        .await?;
        let is_another = keyed
            .is_some_and(|id| earlier.as_ref().is_none_or(|earlier| earlier.settlement_id != id));
        if is_another {
            return Err(FacilitatorError::IdempotencyKeyReused);
        }
        Ok(earlier)
    }

    /// The verdict on a payment: the one that was found by the newest block or the one before it, or a new
    /// one.
    async fn verdict(
        &self,
        chain: &ServedChain,
        request: &PaymentRequest,
        now: UnixTime,
    ) -> Result<Verdict, FacilitatorError> {
        let statement = match statement(request) {
            Ok(statement) => statement,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(verified) = chain.verdicts.find(&statement.key())
            && let Some(renewed) = verified.renewed(request, now)
        {
            metrics::counter!("quittance_verdicts_reused_total").increment(1);
            return Ok(renewed.map(|()| verified));
        }
        let (verdict, _) = self.judge(chain, statement, now).await?;
        Ok(verdict)
    }

    /// Makes the promise, if the payer's balance covers it beside its other promises. The payer's promises
    /// are made one after the other: of two that only one is covered of, one is made.
    async fn claim(
        &self,
        claim: &Claim,
        guest: Guest<'_>,
    ) -> Result<Result<ClaimOutcome, Refusal>, FacilitatorError> {
        let Guest { chain, verified, .. } = guest;
        let (mut books, mut gas_wei) = (None, None);
        for _ in 0..N_CLAIM_TRIES {
            if let Some(books) = books.take()
                && let Err(refusal) = self.covered(chain, verified, books).await?
            {
                return Ok(Err(refusal));
            }
            if let Err(refusal) = self.deny_by_oracle(guest).await? {
                return Ok(Err(refusal));
            }
            let _turn = self.turns.of(verified.terms().authorization().payer).await;
            let mut db = self.pool.begin().await.during("claim a settlement")?;
            house::open(&mut db).await?;
            ledger::hold_payer(&mut db, verified).await?;
            let found = read_books(&mut db, chain, verified).await?;
            if found.promised.claimed.is_none() && !found.cover(verified) {
                // Looked into, and waited for, without holding the payer.
                drop(db);
                books = Some(found);
                continue;
            }
            // What is claimed already is told so, whatever else forbids it by now.
            let room = match found.promised.claimed {
                Some(_) => None,
                None => match self.admit(&mut db, guest, gas_wei).await? {
                    Look::Room(room) => Some(room),
                    Look::Refused(refusal) => return Ok(Err(refusal)),
                    Look::Errand(errand) => {
                        drop(db);
                        gas_wei = self.run(errand, guest).await?.or(gas_wei);
                        continue;
                    }
                },
            };
            let gas_reserved_wei = room.as_deref().map_or(U256::ZERO, Room::gas_reserved_wei);
            let outcome = ledger::claim(&mut db, claim, verified, gas_reserved_wei).await?;
            if outcome == ClaimOutcome::Claimed {
                let announced = [Announced::from(verified.terms())];
                let chain_id = chain.engine.chain().chain_id();
                self.promises.announce(&mut db, chain_id, &announced).await?;
                if let Some(room) = room
                    && let Err(refusal) = self.take(&mut db, claim.settlement_id, room).await?
                {
                    return Ok(Err(refusal));
                }
                crash_point("accept.before_commit");
                db.commit().await.during("claim a settlement")?;
                crash_point("accept.after_commit");
            }
            return Ok(Ok(outcome));
        }
        Err(FacilitatorError::Busy)
    }

    async fn repeat(
        &self,
        caller: &Caller,
        request: &PaymentRequest,
        key: Option<&IdempotencyKey>,
        earlier: &Settlement,
        deadline: Instant,
    ) -> Result<SettleOutcome, FacilitatorError> {
        let settlement_id = earlier.settlement_id;
        let mut conn = self.pool.acquire().await.during("read an earlier claim")?;
        let asker = match relation(caller, request, key, earlier) {
            Repetition::Stranger => return Ok(SettleOutcome::Duplicate { transaction_hash: None }),
            Repetition::Duplicate => return duplicate(&mut conn, earlier).await,
            Repetition::Proven => Asker::KeyedRepeater,
            Repetition::Plausible => Asker::Unproven,
        };
        // The place is taken before the right, so that a right is never held by nobody.
        let waiting = self.outcomes.wait_for(settlement_id)?;
        if asker == Asker::Unproven && earlier.status != SettlementStatus::Failed {
            let is_taken = ledger::take_answer_right(&mut conn, settlement_id).await;
            if !matches!(is_taken, Ok(true)) {
                // The right, if anybody holds it, is another caller's.
                waiting.leave();
                is_taken?;
                return duplicate(&mut conn, earlier).await;
            }
        }
        drop(conn);
        self.answer(settlement_id, waiting, deadline, asker).await
    }

    /// The outcome of an earlier claim, which may stand already.
    async fn answer(
        &self,
        settlement_id: SettlementId,
        waiting: Waiting,
        deadline: Instant,
        asker: Asker,
    ) -> Result<SettleOutcome, FacilitatorError> {
        if let Some(outcome) = self.outcome(settlement_id, asker).await? {
            waiting.leave();
            return Ok(outcome);
        }
        self.wait(settlement_id, waiting, deadline, asker).await
    }

    async fn wait(
        &self,
        settlement_id: SettlementId,
        mut waiting: Waiting,
        deadline: Instant,
        asker: Asker,
    ) -> Result<SettleOutcome, FacilitatorError> {
        waiting.until(deadline).await;
        if let Some(outcome) = self.outcome(settlement_id, asker).await? {
            waiting.leave();
            return Ok(outcome);
        }
        let mut conn = self.pool.acquire().await.during("answer that a settlement is pending")?;
        let attempt = engine::latest_attempt(&mut conn, settlement_id).await?;
        // Released before the answer leaves: the SDK repeats the request at once.
        ledger::release_answer_rights(&mut conn, &[settlement_id]).await?;
        waiting.leave();
        attempt
            .map(|transaction_hash| SettleOutcome::Pending { transaction_hash })
            .ok_or(FacilitatorError::NotSentYet)
    }

    /// The outcome, if the settlement has one, and the success of it if it is ours to tell.
    async fn outcome(
        &self,
        settlement_id: SettlementId,
        asker: Asker,
    ) -> Result<Option<SettleOutcome>, FacilitatorError> {
        let mut conn = self.pool.acquire().await.during("read an outcome")?;
        if let Some(transaction_hash) = ledger::hand_out_success(&mut conn, settlement_id).await? {
            crash_point("respond.before");
            return Ok(Some(SettleOutcome::Paid { transaction_hash, is_replay: false }));
        }
        // Failed, told before, or undecided. Read afterwards, so that it cannot be older than that.
        let settlement = ledger::settlement(&mut conn, settlement_id).await?;
        if let Some(refusal) = settlement.failure {
            let transaction_hash = engine::latest_attempt(&mut conn, settlement_id).await?;
            let is_replay = asker == Asker::KeyedRepeater;
            return Ok(Some(SettleOutcome::Failed { refusal, transaction_hash, is_replay }));
        }
        let Some(transaction_hash) = settlement.transaction_hash.filter(|_| settlement.is_answered)
        else {
            return Ok(None);
        };
        Ok(Some(match asker {
            Asker::KeyedClaimant | Asker::KeyedRepeater => {
                SettleOutcome::Paid { transaction_hash, is_replay: true }
            }
            Asker::Unproven if has_defect(Defect::EveryoneIsTold) => {
                SettleOutcome::Paid { transaction_hash, is_replay: false }
            }
            Asker::Unproven => {
                SettleOutcome::Duplicate { transaction_hash: Some(transaction_hash) }
            }
        }))
    }
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// A caller without a key: success is for it only if nobody was told before.
    Unproven,
    /// The caller whose keyed request made the claim. It and its repetitions are one caller.
    KeyedClaimant,
    /// A repetition of that request, proven by the key.
    KeyedRepeater,
}

fn relation(
    caller: &Caller,
    request: &PaymentRequest,
    key: Option<&IdempotencyKey>,
    earlier: &Settlement,
) -> Repetition {
    if caller.merchant_id != earlier.merchant_id
        || !repeats(request, earlier.digest, &earlier.signature)
    {
        return Repetition::Stranger;
    }
    match (key, &earlier.idempotency_key) {
        (Some(key), Some(claimed_under)) if key == claimed_under => Repetition::Proven,
        (None, None) => Repetition::Plausible,
        _ => Repetition::Duplicate,
    }
}

async fn duplicate(
    conn: &mut PgConnection,
    earlier: &Settlement,
) -> Result<SettleOutcome, FacilitatorError> {
    let transaction_hash = match earlier.transaction_hash {
        Some(hash) => Some(hash),
        None => engine::latest_attempt(conn, earlier.settlement_id).await?,
    };
    Ok(SettleOutcome::Duplicate { transaction_hash })
}
