//! Resource servers: they present payments to replicas, ask again as SDKs do, and write down what
//! they heard.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quittance::{
    app::dev::{Account, Buyer},
    domain::{Amount, Authorization, UnixTime},
};
use serde_json::Value;

use crate::{
    dice::Dice,
    ground::Ground,
    meddler::Meddlers,
    record::{Asked, Heard, Identity, Tier},
    roster::{Place, Roster},
    schedule::N_REPLICAS,
    support,
};

/// The Go and Python SDKs give a settlement up after so long.
const SDK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its expiry a payment must have an outcome (I8); nobody asks for longer.
pub(crate) const OUTCOME_AFTER_EXPIRY: Duration = Duration::from_secs(60);
/// How long most authorizations are valid.
const VALID_FOR_S: u64 = 90;
/// And at most.
pub(crate) const VALID_FOR_MAX: Duration = Duration::from_secs(VALID_FOR_S);
/// How many callers may be under way; more are not started, so that trouble does not pile up.
const N_UNDER_WAY_MAX: usize = 300;

/// What all clients share.
pub(crate) struct Market {
    pub(crate) roster: Arc<Roster>,
    pub(crate) ground: Arc<Ground>,
    pub(crate) meddlers: Meddlers,
    pub(crate) buyers: Vec<(Account, Buyer)>,
    pub(crate) payee: alloy::primitives::Address,
    pub(crate) api_key: String,
    pub(crate) http: reqwest::Client,
    pub(crate) history: Mutex<Vec<Asked>>,
}

/// How one payment is made. Pure: the seed says it all, but for the time and the random nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Purchase {
    number: u64,
    buyer: usize,
    key: Option<String>,
    wait_for: Tier,
    /// How many callers present it at once.
    n_callers: usize,
    valid_for_s: u64,
    meddling: Meddling,
    is_impatient: bool,
}

/// What somebody does besides, so long before or after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meddling {
    None,
    SubmitsFirst,
    Submits(Duration),
    Cancels(Duration),
}

impl Purchase {
    fn plan(seed: u64, number: u64, n_buyers: usize) -> Self {
        let mut dice = Dice::of(seed, 1_000_000 + number);
        let after = Duration::from_millis(dice.between(0, 2_500));
        let meddling = match dice.between(0, 99) {
            0 => Meddling::SubmitsFirst,
            1..=4 => Meddling::Submits(after),
            5 | 6 => Meddling::Cancels(after),
            _ => Meddling::None,
        };
        Self {
            number,
            buyer: usize::try_from(number).unwrap() % n_buyers,
            key: dice.happens(50).then(|| format!("order-{seed}-{number}")),
            wait_for: match dice.between(0, 19) {
                0 => Tier::Finalized,
                1 | 2 => Tier::Safe,
                _ => Tier::Included,
            },
            n_callers: if dice.happens(8) { 2 } else { 1 },
            valid_for_s: if dice.happens(6) { dice.between(8, 14) } else { VALID_FOR_S },
            meddling,
            is_impatient: dice.happens(8),
        }
    }
}

impl Market {
    /// Starts payments at `per_second` for `length`, and returns how many once all their callers
    /// have heard an outcome or given up.
    pub(crate) async fn trade(
        self: &Arc<Self>,
        seed: u64,
        per_second: u64,
        length: Duration,
    ) -> u64 {
        let mut clock =
            tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second).unwrap());
        let end = tokio::time::Instant::now() + length;
        let (mut number, mut under_way) = (0, tokio::task::JoinSet::new());
        while tokio::time::Instant::now() < end {
            clock.tick().await;
            while under_way.try_join_next().is_some_and(|ended| ended.is_ok()) {}
            if under_way.len() >= N_UNDER_WAY_MAX {
                continue;
            }
            let purchase = Purchase::plan(seed, number, self.buyers.len());
            let market = Arc::clone(self);
            under_way.spawn(async move { market.make(seed, purchase).await });
            number += 1;
        }
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
        number
    }

    async fn make(self: Arc<Self>, seed: u64, purchase: Purchase) {
        let (account, buyer) = &self.buyers[purchase.buyer];
        let amount = Amount::parse(&(1_000 + purchase.number).to_string()).unwrap();
        let now = support::now();
        let valid_before = now.saturating_add(Duration::from_secs(purchase.valid_for_s)).as_u256();
        let authorization =
            Authorization { valid_before, ..buyer.authorization(self.payee, amount, now) };
        let payment = buyer.request(&authorization).unwrap();
        let meddle = async {
            match purchase.meddling {
                Meddling::None | Meddling::SubmitsFirst => (),
                Meddling::Submits(after) => {
                    tokio::time::sleep(after).await;
                    self.meddlers.submit(&self.ground, &authorization, &payment).await;
                }
                Meddling::Cancels(after) => {
                    tokio::time::sleep(after).await;
                    self.meddlers.cancel(&self.ground, &authorization, account).await;
                }
            }
        };
        if purchase.meddling == Meddling::SubmitsFirst {
            self.meddlers.submit(&self.ground, &authorization, &payment).await;
        }
        let callers = (0..purchase.n_callers).map(|caller| {
            let dice =
                Dice::of(seed, 2_000_000 + purchase.number * 2 + u64::try_from(caller).unwrap());
            self.insist(&purchase, caller, &authorization, &payment, now, dice)
        });
        tokio::join!(meddle, futures_util::future::join_all(callers));
    }

    /// One caller: asks until it hears an outcome.
    async fn insist(
        &self,
        purchase: &Purchase,
        caller: usize,
        authorization: &Authorization,
        payment: &Value,
        signed_at: UnixTime,
        mut dice: Dice,
    ) {
        let patience = Duration::from_secs(purchase.valid_for_s) + OUTCOME_AFTER_EXPIRY;
        let gives_up_at = signed_at.saturating_add(patience);
        let identity =
            Identity { payer: authorization.payer, nonce: *authorization.nonce.as_bytes() };
        let mut hangs_up = purchase.is_impatient;
        while support::now() < gives_up_at {
            let replica = usize::try_from(dice.between(0, 2)).unwrap() % N_REPLICAS;
            let timeout =
                if hangs_up { Duration::from_millis(dice.between(50, 1_500)) } else { SDK_TIMEOUT };
            let place = self.roster.place(replica);
            let at_ms = now_ms();
            let answered = tokio::time::timeout(timeout, self.ask(purchase, &place, payment)).await;
            let ended_ms = now_ms();
            let heard =
                match answered {
                    Err(_) if hangs_up => Heard::HungUp,
                    Err(_) => Heard::Silence,
                    Ok(Ok((status, is_replay, body))) => heard(status, is_replay, &body),
                    Ok(Err(error)) if self.roster.is_gone(replica, &place) => {
                        if error.is_connect() { Heard::Unreachable } else { Heard::CutOff }
                    }
                    Ok(Err(error)) => Heard::Dropped(format!("{error:?}")),
                };
            hangs_up &= heard != Heard::HungUp;
            let pause_ms = match heard {
                Heard::Pending => dice.between(20, 200),
                Heard::Unavailable => dice.between(500, 2_000),
                _ => dice.between(50, 400),
            };
            let is_terminal = heard.is_terminal();
            let (key, wait_for) = (purchase.key.clone(), purchase.wait_for);
            let asked = Asked { identity, caller, key, wait_for, replica, at_ms, ended_ms, heard };
            self.history.lock().unwrap().push(asked);
            if is_terminal {
                return;
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Status, whether it is told again, and body.
    async fn ask(
        &self,
        purchase: &Purchase,
        place: &Place,
        payment: &Value,
    ) -> reqwest::Result<(u16, bool, String)> {
        let mut request = self
            .http
            .post(format!("{}/settle", place.url))
            .bearer_auth(&self.api_key)
            .header("Quittance-Wait-For", purchase.wait_for.word())
            .json(payment);
        if let Some(key) = &purchase.key {
            request = request.header("Idempotency-Key", key);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let is_replay = response.headers().contains_key("Idempotent-Replayed");
        // 503 without it tells nobody when to come back.
        let is_hopeless = status == 503 && !response.headers().contains_key("Retry-After");
        let body = response.text().await?;
        Ok((if is_hopeless { 500 } else { status }, is_replay, body))
    }
}

fn heard(status: u16, is_replay: bool, body: &str) -> Heard {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    let transaction_hash = answer["transaction"].as_str().and_then(|hash| hash.parse().ok());
    match (status, answer["success"].as_bool(), answer["errorReason"].as_str(), transaction_hash) {
        (503, Some(false), _, _) => Heard::Unavailable,
        (200, Some(true), None, Some(transaction_hash)) => {
            Heard::Paid { transaction_hash, is_replay }
        }
        (200, Some(false), Some("settlement_pending"), Some(_)) => Heard::Pending,
        (200, Some(false), Some("duplicate_settlement"), _) => Heard::Duplicate,
        (200, Some(false), Some(reason), _) if reason.starts_with("invalid_") => {
            Heard::Refused(reason.to_owned())
        }
        _ => Heard::Strange(format!("{status} {body}")),
    }
}

/// The clock that the database reads as well.
#[allow(clippy::disallowed_methods, reason = "clients write down the time of day")]
pub(crate) fn now_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap().as_millis()).unwrap()
}

#[test]
fn purchases_are_as_the_seed_says_and_of_every_kind() {
    let plans: Vec<Purchase> = (0..1_000).map(|number| Purchase::plan(3, number, 8)).collect();
    assert_eq!(plans[17], Purchase::plan(3, 17, 8));
    let n = |test: fn(&Purchase) -> bool| plans.iter().filter(|plan| test(plan)).count();
    let meddled = n(|plan| matches!(plan.meddling, Meddling::SubmitsFirst | Meddling::Submits(_)));
    assert!((30..70).contains(&meddled), "{meddled} of 1000 are submitted by others, not 5 %");
    for (count, what) in [
        (n(|plan| matches!(plan.meddling, Meddling::Cancels(_))), "cancelled"),
        (n(|plan| plan.valid_for_s < VALID_FOR_S), "short-lived"),
        (n(|plan| plan.key.is_none()), "without a key"),
        (n(|plan| plan.n_callers > 1), "presented twice"),
        (n(|plan| plan.wait_for == Tier::Finalized), "waiting for finality"),
        (n(|plan| plan.is_impatient), "impatient"),
    ] {
        assert!(count > 5, "{count} are {what}");
    }
}
