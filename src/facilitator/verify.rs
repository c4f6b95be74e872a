//! Would this payment be paid?

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    chain::{Question, Testimony},
    db::During,
    domain::{Amount, InvalidReason, PaymentRequest, Refusal, SettlementStatus, UnixTime},
    ledger::{self, PromiseKey, Promised},
    merchants::Caller,
    verify::{Statement, Verified, against, statement},
};

use super::{Facilitator, FacilitatorError, ServedChain, check_allowed, check_mode, house::Guest};

/// How long the books may take to reach the block that a payment was verified at, where that matters.
const BOOKS_WAIT: Duration = Duration::from_secs(3);
/// How often they are looked at meanwhile.
const BOOKS_INTERVAL: Duration = Duration::from_millis(100);

/// A verdict: why not, if not.
pub(super) type Verdict = Result<Arc<Verified>, Refusal>;

impl Facilitator {
    /// Judges a payment and changes nothing: it may be asked any number of times.
    ///
    /// # Errors
    /// Trouble of ours or of the merchant; a verdict against the payment is the inner `Err`.
    pub async fn verify(
        &self,
        caller: &Caller,
        request: &PaymentRequest,
        now: UnixTime,
    ) -> Result<Verdict, FacilitatorError> {
        if let Err(refusal) = check_allowed(caller, &request.requirements) {
            return Ok(Err(refusal));
        }
        let chain = match self.served(request.requirements.chain_id) {
            Ok(chain) => chain,
            Err(refusal) => return Ok(Err(refusal)),
        };
        check_mode(caller, chain)?;
        let statement = match statement(request) {
            Ok(statement) => statement,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (verdict, books) = self.judge(chain, statement, now).await?;
        let Some(books) = books else { return Ok(verdict) };
        if let Some(status) = books.promised.claimed {
            let refusal = claimed_already(status);
            // What comes before it in the order of reasons is told before it.
            let earlier = verdict.err().filter(|earlier| earlier.reason < refusal.reason);
            return Ok(Err(earlier.unwrap_or(refusal)));
        }
        let Ok(verified) = verdict else { return Ok(verdict) };
        if let Err(refusal) = self.covered(chain, &verified, books).await? {
            return Ok(Err(refusal));
        }
        let guest = Guest { caller, chain, verified: &verified };
        let taken = self.would_take(guest).await?;
        Ok(taken.map(|()| verified))
    }

    /// Judges a statement by what the newest block says, and reports what the books say, if they were asked.
    pub(super) async fn judge(
        &self,
        chain: &ServedChain,
        statement: Statement<'_>,
        now: UnixTime,
    ) -> Result<(Verdict, Option<Books>), FacilitatorError> {
        let key = statement.key();
        let terms = match statement.terms(now, &chain.factories) {
            Ok(terms) => terms,
            Err(refusal) => return Ok((Err(refusal), None)),
        };
        let asset = chain.engine.chain().asset(terms.requirements().asset).await?;
        let seen = chain.verifications.ask(key.clone(), Question::of(&terms)).await?;
        let books = seen.books.clone();
        let mut snapshot = seen.snapshot.clone();
        snapshot.token_name.clone_from(&asset.name);
        snapshot.token_version.clone_from(&asset.version);
        snapshot.domain_separator = asset.domain_separator;
        let verified = match against(terms, &snapshot) {
            Ok(verified) => Arc::new(verified),
            Err(refusal) => return Ok((Err(refusal), Some(books))),
        };
        if let Err(refusal) = check_asset(chain, &verified).await? {
            return Ok((Err(refusal), Some(books)));
        }
        chain.verdicts.keep(key, &verified);
        Ok((Ok(verified), Some(books)))
    }

    /// Whether the payer's balance covers the payment beside everything else that it has promised.
    ///
    /// The balance is of the block that was verified at, so the promises have to be too: while the books
    /// are behind, a promise may be paid already, and be taken off twice. Then they are waited for.
    pub(super) async fn covered(
        &self,
        chain: &ServedChain,
        verified: &Verified,
        mut books: Books,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        let patience = Instant::now() + BOOKS_WAIT;
        loop {
            let covered = verified.beside(books.outflow_at(verified.block_number()));
            if covered.is_ok() || books.have_reached(verified.block_number()) {
                return Ok(covered);
            }
            if Instant::now() >= patience {
                return Err(FacilitatorError::BooksBehind);
            }
            tokio::time::sleep(BOOKS_INTERVAL).await;
            books = self.books(chain, verified).await?;
        }
    }

    async fn books(
        &self,
        chain: &ServedChain,
        verified: &Verified,
    ) -> Result<Books, FacilitatorError> {
        let mut conn = self.pool.acquire().await.during("read what is promised")?;
        read_books(&mut conn, chain, verified).await
    }
}

/// Refuses assets whose events would not prove a payment.
async fn check_asset(
    chain: &ServedChain,
    verified: &Verified,
) -> Result<Result<(), Refusal>, FacilitatorError> {
    let chain = chain.engine.chain();
    let message = match chain.testimony(verified).await? {
        Testimony::Proves => return Ok(Ok(())),
        Testimony::Lacks(what) => {
            format!("the asset's events would not prove that it was paid: {what}")
        }
        Testimony::Unheard => format!(
            "whether the asset's events prove payments cannot be found out: the operator has no \
             endpoint of {} with eth_simulateV1",
            chain.chain_id()
        ),
    };
    Ok(Err(Refusal::new(InvalidReason::Eip3009NotSupported, message)))
}

/// What the books hold against one payment, at one moment.
#[derive(Debug, Clone)]
pub(super) struct Books {
    pub(super) promised: Promised,
    pub(super) applied_head: Option<u64>,
}

impl Books {
    /// Whether the payer's balance covers the payment beside what else it promised.
    pub(super) fn cover(&self, verified: &Verified) -> bool {
        verified.beside(self.outflow_at(verified.block_number())).is_ok()
    }

    /// What the payer promised besides, and no block up to `block` has taken.
    fn outflow_at(&self, block: u64) -> Amount {
        let later = self.promised.mined.iter().filter(|(mined_in, _)| *mined_in > block);
        later.fold(self.promised.unmined, |sum, (_, amount)| {
            sum.checked_add(*amount).unwrap_or(Amount::MAX)
        })
    }

    /// Whether they know every block up to `block`. Books without a promise are never behind.
    fn have_reached(&self, block: u64) -> bool {
        self.promised.unmined == Amount::ZERO || self.applied_head.is_some_and(|head| head >= block)
    }
}

/// Reads them for a payment that was verified.
pub(super) async fn read_books(
    conn: &mut PgConnection,
    chain: &ServedChain,
    verified: &Verified,
) -> Result<Books, FacilitatorError> {
    let (terms, chain_id) = (verified.terms(), chain.engine.chain().chain_id());
    let key = PromiseKey::of(terms.requirements().asset, terms.authorization());
    let promises = ledger::promised(conn, chain_id, &[key], verified.block_time()).await?;
    let promised = promises.promised.into_iter().next().unwrap_or(Promised::NOTHING);
    Ok(Books { promised, applied_head: promises.applied_head })
}

fn claimed_already(status: SettlementStatus) -> Refusal {
    let message = match status {
        SettlementStatus::Failed => "the authorization was presented before, and failed",
        SettlementStatus::Claimed | SettlementStatus::Submitted => {
            "the authorization is being settled"
        }
        SettlementStatus::Included | SettlementStatus::Safe | SettlementStatus::Finalized => {
            "the authorization was settled"
        }
    };
    Refusal::new(InvalidReason::NonceAlreadyUsed, message)
}
