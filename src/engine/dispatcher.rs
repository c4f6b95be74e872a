//! The wallet's loop: gives claimed settlements an account nonce, signs, stores, sends.
//!
//! Account nonce and signature are made at the moment of sending, so waiting settlements hold no
//! nonce and leave no gap. What is stored is sent again after each block that does not hold it.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Block, TRANSFER_GAS_LIMIT, transfer_calldata},
    db::During,
    domain::{SettlementId, SettlementStatus},
    ledger::{self, Settlement},
    telemetry::causes,
};

use super::{
    Engine, EngineError, fees, outcomes,
    store::{self, NewTransaction, OpenTransaction},
    verdict::{Verdict, examine},
    wallet::{Call, Signed},
};

/// How often the wallet looks for work without being woken: other replicas claim too.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the wallet rests after trouble.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How many settlements that cannot be sent are looked into before the wallet turns to what is open.
const N_SKIPPED_MAX: usize = 16;
/// How long a settlement that cannot be paid now is left alone at least.
const NOT_NOW_DELAY: Duration = Duration::from_secs(2);

/// What this process remembers of what it sent. Lost at a restart, and then everything open is sent
/// again, which is harmless: the bytes are the same.
#[derive(Debug, Default)]
struct Sent {
    height_of: HashMap<i64, u64>,
}

impl Engine {
    /// Runs the wallet until `stop`.
    pub async fn run_wallet(&self, stop: &CancellationToken) {
        let Some(wallet_id) = self.register_until(stop).await else { return };
        let mut sent = Sent::default();
        while !stop.is_cancelled() {
            let pause = match Self::bounded(self.dispatch(wallet_id, &mut sent)).await {
                Ok(()) => {
                    self.health.wallet_succeeded();
                    POLL_INTERVAL
                }
                Err(error) => {
                    self.health.wallet_failed(error.to_string());
                    tracing::warn!(
                        error = causes(&error), chain.id = %self.chain.chain_id(), "the wallet could not go on"
                    );
                    RETRY_INTERVAL
                }
            };
            tokio::select! {
                () = stop.cancelled() => (),
                () = self.work.notified() => (),
                () = tokio::time::sleep(pause) => (),
            }
        }
    }

    async fn register_until(&self, stop: &CancellationToken) -> Option<i32> {
        loop {
            match self.register().await {
                Ok(wallet_id) => return Some(wallet_id),
                Err(error) => {
                    tracing::error!(error = causes(&error), "the wallet cannot start");
                    self.health.wallet_failed(error.to_string());
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(POLL_INTERVAL) => (),
            }
        }
    }

    async fn register(&self) -> Result<i32, EngineError> {
        self.chain.check().await?;
        let address = self.wallet.address();
        let on_chain = self.chain.account_nonce(address).await?;
        let mut conn = self.pool.acquire().await.during("register a wallet")?;
        let row = store::ensure_wallet(&mut conn, self.chain.chain_id(), address, on_chain).await?;
        if on_chain > row.next_account_nonce {
            return Err(EngineError::ForeignTransactions {
                chain_id: self.chain.chain_id(),
                address,
                on_chain,
                recorded: row.next_account_nonce,
            });
        }
        if self.chain.balance_wei(address).await?.is_zero() {
            tracing::error!(wallet.address = %address, "the wallet has no money for gas");
        }
        Ok(row.wallet_id)
    }

    /// Sends again what the last block left out, then signs for what waits, while places are free.
    async fn dispatch(&self, wallet_id: i32, sent: &mut Sent) -> Result<(), EngineError> {
        let mut conn = self.pool.acquire().await.during("read open transactions")?;
        let open = store::open_transactions(&mut conn, wallet_id).await?;
        drop(conn);
        sent.height_of.retain(|id, _| open.iter().any(|open| open.transaction_id == *id));
        for transaction in &open {
            self.send_if_due(transaction, sent).await?;
        }
        let (mut n_in_flight, mut n_skipped) = (open.len(), 0_usize);
        while n_in_flight < self.options.n_in_flight_max && n_skipped < N_SKIPPED_MAX {
            match self.sign_next(wallet_id).await? {
                Next::Stored(transaction) => {
                    self.send_if_due(&transaction, sent).await?;
                    n_in_flight = n_in_flight.saturating_add(1);
                }
                Next::Skipped => n_skipped = n_skipped.saturating_add(1),
                Next::Nothing => break,
            }
        }
        metrics::gauge!("quittance_wallet_in_flight", "chain" => self.chain.chain_id().to_string())
            .set(u32::try_from(n_in_flight).unwrap_or(u32::MAX));
        Ok(())
    }

    async fn sign_next(&self, wallet_id: i32) -> Result<Next, EngineError> {
        let mut conn = self.pool.acquire().await.during("find the next settlement to send")?;
        let Some((settlement_id, is_fresh)) =
            store::next_claimed(&mut conn, self.chain.chain_id()).await?
        else {
            return Ok(Next::Nothing);
        };
        let settlement = ledger::settlement(&mut conn, settlement_id).await?;
        let account_nonce = store::next_account_nonce(&mut conn, wallet_id).await?;
        drop(conn);
        if !is_fresh && !self.is_still_payable(&settlement).await? {
            return Ok(Next::Skipped);
        }
        let fees = fees::offer(self.chain.fee_facts().await?, self.options.fee_limits)?;
        let signed = self.wallet.sign(&Call {
            chain_id: self.chain.chain_id(),
            account_nonce,
            to: settlement.asset,
            data: transfer_calldata(&settlement.authorization, &settlement.signature),
            gas_limit: TRANSFER_GAS_LIMIT,
            fees,
        })?;
        let new = NewTransaction {
            wallet_id,
            chain_id: self.chain.chain_id(),
            account_nonce,
            signed: &signed,
            fees,
            gas_limit: TRANSFER_GAS_LIMIT,
            settlement_ids: &[settlement_id],
        };
        Ok(match self.store(&new, settlement_id).await? {
            Some(transaction_id) => {
                tracing::info!(
                    settlement.id = %settlement_id,
                    transaction.hash = %signed.hash,
                    account_nonce,
                    "stored a transaction"
                );
                let Signed { hash, raw } = signed;
                Next::Stored(OpenTransaction { transaction_id, hash, raw })
            }
            None => Next::Skipped,
        })
    }

    /// One database transaction: the nonce, the bytes, and the settlement's state. What is signed
    /// and not stored is thrown away and was never sent.
    async fn store(
        &self,
        new: &NewTransaction<'_>,
        settlement_id: SettlementId,
    ) -> Result<Option<i64>, EngineError> {
        let mut db = self.pool.begin().await.during("store a transaction")?;
        let Some(transaction_id) = store::store_transaction(&mut db, new).await? else {
            return Ok(None);
        };
        if !ledger::submit(&mut db, settlement_id, new.signed.hash).await? {
            return Ok(None);
        }
        db.commit().await.during("store a transaction")?;
        Ok(Some(transaction_id))
    }

    /// Looks at an old claim once more before it is signed for. What proves it paid or unpayable is
    /// written; what cannot be told is left for later.
    async fn is_still_payable(&self, settlement: &Settlement) -> Result<bool, EngineError> {
        let settlement_id = settlement.settlement_id;
        let examined = match self.applied_tip(settlement).await? {
            Some(block) => examine(&self.chain, settlement, &block).await,
            None => return self.postpone(settlement_id).await,
        };
        let verdict = match examined {
            Ok(Verdict::Payable) => return Ok(true),
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::warn!(
                    error = causes(&error), settlement.id = %settlement_id, "could not look into a settlement"
                );
                return self.postpone(settlement_id).await;
            }
        };
        let chain_id = self.chain.chain_id();
        let mut db = self.pool.begin().await.during("settle what was found")?;
        let is_written = match verdict {
            Verdict::Refused(refusal) => {
                let expected = [SettlementStatus::Claimed];
                ledger::fail(&mut db, settlement_id, &expected, &refusal).await?
            }
            // In a block above the applied head, the follower will find it by itself.
            Verdict::Paid(evidence) => {
                store::is_canonical(&mut db, chain_id, &evidence).await?
                    && ledger::include(&mut db, chain_id, settlement_id, &evidence, false).await?
            }
            Verdict::Payable | Verdict::NotNow(_) => false,
        };
        if !is_written {
            drop(db);
            return self.postpone(settlement_id).await;
        }
        outcomes::announce(&mut db, chain_id).await?;
        db.commit().await.during("settle what was found")?;
        tracing::info!(settlement.id = %settlement_id, "a settlement was decided unsent");
        Ok(false)
    }

    /// The block that was applied last, unless it is older than the one that verification saw: a
    /// lagging node knows of less money than the payer has.
    async fn applied_tip(&self, settlement: &Settlement) -> Result<Option<Block>, EngineError> {
        let mut conn = self.pool.acquire().await.during("read the applied head")?;
        let tip = store::tip(&mut conn, self.chain.chain_id()).await?;
        drop(conn);
        let Some(tip) = tip.filter(|tip| tip.number >= settlement.verified_block) else {
            return Ok(None);
        };
        let block = self.chain.block_at(tip.number).await?;
        Ok(block.filter(|block| block.hash == tip.hash))
    }

    async fn postpone(&self, settlement_id: SettlementId) -> Result<bool, EngineError> {
        let mut conn = self.pool.acquire().await.during("postpone a settlement")?;
        store::postpone(&mut conn, settlement_id, NOT_NOW_DELAY).await?;
        Ok(false)
    }

    async fn send_if_due(
        &self,
        transaction: &OpenTransaction,
        sent: &mut Sent,
    ) -> Result<(), EngineError> {
        let height = self.applied_height.load(Ordering::Relaxed);
        if sent.height_of.get(&transaction.transaction_id) == Some(&height) {
            return Ok(());
        }
        sent.height_of.insert(transaction.transaction_id, height);
        self.expect_blocks();
        let report = self.chain.send(transaction.hash, &transaction.raw).await;
        let answer = report.telling().to_string();
        if !report.is_acknowledged() {
            tracing::warn!(
                transaction.hash = %transaction.hash, answer, "a send was not acknowledged"
            );
        }
        let mut conn = self.pool.acquire().await.during("note a send")?;
        store::note_sent(&mut conn, transaction.hash, &answer).await?;
        Ok(())
    }
}

enum Next {
    Stored(OpenTransaction),
    Skipped,
    Nothing,
}
