//! Everything outside of a process: one chain, one database, one clock, and the faults between.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    rc::Rc,
    task::Poll,
};

use alloy::{
    primitives::{Address, B256, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};
use uuid::Uuid;

use crate::{
    chain::SendAnswer,
    domain::{
        Amount, Authorization, AuthorizationNonce, ChainId, MerchantId, PayerKind, SettlementId,
        SettlementStatus, TokenDomain, UnixTime, X402Version,
    },
    engine::{
        policy::{
            fees::Fees,
            verdict::{Verdict, by_snapshot},
        },
        store::WalletStatus,
    },
    ledger::Settlement,
    verify::authorization_digest,
};

use super::{
    books::{Books, Lease, Refused, WalletBooks},
    chain::{Chain, Envelope, Mood},
    token::{ASSET, Call, SPOILING_AMOUNT, TOKEN_NAME, TOKEN_VERSION},
};

/// How many wallets there are. Only the last one's key is ever stolen.
pub(super) const N_WALLETS: usize = 2;
/// How many payments a history holds.
const N_SETTLEMENTS_MAX: u8 = 12;
const N_PAYERS: u8 = 3;
const START: u64 = 1_600;
/// Expiries are multiples of it, so that few signatures have to be made.
const EXPIRY_GRID: u64 = 8;
/// What outsiders offer: more than we ever do.
const OUTSIDER_FEES: Fees =
    Fees { fee_wei_max: 50_000_000_000, priority_fee_wei_max: 20_000_000_000 };

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It is rolled back.
    Commit,
    /// It stands, and its caller never hears of it.
    Acknowledgement,
}

/// Why a step ends early. What it had in hand is forgotten; what it stored is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    LeaseLost,
    Database,
    Node(&'static str),
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) chain: Chain,
    pub(super) books: Books,
    /// The clock of the database and of who builds blocks.
    pub(super) now: u64,
    /// How the node answers next; honestly, when nothing is here.
    pub(super) moods: VecDeque<Mood>,
    /// What becomes of the next commit.
    pub(super) loss: Option<Loss>,
    /// The leases of commits that stood although they were not held any more.
    pub(super) stale_commits: Vec<Lease>,
    /// What must never happen and did.
    pub(super) violations: Vec<String>,
    /// Bytes that somebody else signed with a wallet's key.
    pub(super) stolen: BTreeSet<B256>,
    n_outsiders: u64,
}

pub(super) type Shared = Rc<RefCell<World>>;

/// One thing that a process does with the world outside. Anything can happen before it: other
/// processes go on, blocks come, and this process may end here.
pub(super) async fn outside<T>(world: &Shared, act: impl FnOnce(&mut World) -> T) -> T {
    let mut is_waiting = true;
    poll_fn(|_| if std::mem::take(&mut is_waiting) { Poll::Pending } else { Poll::Ready(()) })
        .await;
    act(&mut world.borrow_mut())
}

/// One database transaction of an owner. `None` rolls it back.
pub(super) async fn commit<T>(
    world: &Shared,
    lease: Lease,
    write: impl FnOnce(&mut Books) -> Result<Option<T>, Refused>,
) -> Result<Option<T>, Trouble> {
    outside(world, |world| {
        let mut books = world.books.clone();
        if !books.hold_lease(lease) {
            return Err(Trouble::LeaseLost);
        }
        let written = write(&mut books).map_err(|Refused(why)| {
            world.violations.push(why);
            Trouble::Database
        })?;
        let loss = world.loss.take_if(|_| written.is_some());
        if written.is_some() && loss != Some(Loss::Commit) {
            if !world.books.hold_lease(lease) {
                world.stale_commits.push(lease);
            }
            world.books = books;
        }
        if loss.is_some() { Err(Trouble::Database) } else { Ok(written) }
    })
    .await
}

pub(super) fn wallet_address(wallet: usize) -> Address {
    Address::repeat_byte(0xa0 + u8::try_from(wallet).expect("wallets are few"))
}

pub(super) fn settlement_id(n: u8) -> SettlementId {
    SettlementId::from_uuid(Uuid::from_u128(u128::from(n)))
}

impl World {
    pub(super) fn new() -> Self {
        let wallet = |wallet| WalletBooks {
            address: wallet_address(wallet),
            status: WalletStatus::Active,
            next_account_nonce: 0,
        };
        Self {
            chain: Chain::new(UnixTime::from_seconds(START)),
            books: Books { wallets: (0..N_WALLETS).map(wallet).collect(), ..Books::default() },
            now: START,
            moods: VecDeque::new(),
            loss: None,
            stale_commits: Vec::new(),
            violations: Vec::new(),
            stolen: BTreeSet::new(),
            n_outsiders: 0,
        }
    }

    /// Hands stored bytes to the node.
    pub(super) fn send(&mut self, envelope: &Envelope) -> SendAnswer {
        if self.books.attempt(envelope.hash).is_none() {
            self.violations.push("I3: bytes were sent that are not stored".to_owned());
        }
        let mood = self.moods.pop_front().unwrap_or(Mood::Honest);
        self.chain.send(envelope, mood)
    }

    /// A buyer pays: verified at a recent block, and claimed if it is in order there.
    pub(super) fn accept(&mut self, lifetime: u64, n_blocks_ago: usize, is_spoiler: bool) {
        let n = u8::try_from(self.books.settlements.len()).expect("settlements are few");
        if n >= N_SETTLEMENTS_MAX {
            return;
        }
        let mined = self.chain.below_head(n_blocks_ago);
        let expiry = (self.now + lifetime).next_multiple_of(EXPIRY_GRID);
        let mut settlement = signed(n, expiry, is_spoiler);
        settlement.verified_block = mined.block.number;
        let snapshot = mined.state.snapshot(&mined.block, &settlement.authorization);
        let verdict = by_snapshot(&settlement, &snapshot, mined.block.timestamp);
        if verdict == Some(Verdict::Payable) {
            self.books.claim(settlement, self.now);
        }
    }

    pub(super) fn authorization(&self, n: u8) -> Option<Authorization> {
        let row = self.books.settlements.get(&settlement_id(n))?;
        Some(row.settlement.authorization)
    }

    /// Somebody else does something with the token.
    pub(super) fn outsider_calls(&mut self, call: Call) {
        self.n_outsiders += 1;
        let sender = Address::from_word(B256::from(U256::from(self.n_outsiders)));
        let envelope = Envelope::sign(sender, 0, OUTSIDER_FEES, 100_000, vec![call]);
        self.chain.send(&envelope, Mood::Honest);
    }

    /// Somebody else sends from a wallet.
    pub(super) fn steal(&mut self, wallet: usize) {
        let sender = wallet_address(wallet);
        let account_nonce = self.chain.head().state.account_nonce(sender);
        let envelope = Envelope::sign(sender, account_nonce, OUTSIDER_FEES, 21_001, Vec::new());
        self.stolen.insert(envelope.hash);
        self.chain.send(&envelope, Mood::Honest);
    }
}

pub(super) fn payer(n: u8) -> PrivateKeySigner {
    let key = B256::repeat_byte(1 + n % N_PAYERS);
    PrivateKeySigner::from_bytes(&key).expect("small numbers are keys")
}

thread_local! {
    /// Signing is slow in a debug build, and histories ask for the same signatures again.
    static SIGNED: RefCell<BTreeMap<(u8, u64, bool), Settlement>> = const { RefCell::new(BTreeMap::new()) };
}

/// The payment with that number, as its payer signed it.
fn signed(n: u8, expiry: u64, is_spoiler: bool) -> Settlement {
    SIGNED.with_borrow_mut(|signed| {
        signed.entry((n, expiry, is_spoiler)).or_insert_with(|| sign(n, expiry, is_spoiler)).clone()
    })
}

fn sign(n: u8, expiry: u64, is_spoiler: bool) -> Settlement {
    let signer = payer(n);
    let amount = if is_spoiler { SPOILING_AMOUNT } else { 1_000 + u64::from(n) };
    let authorization = Authorization {
        payer: signer.address(),
        payee: Address::repeat_byte(0xee),
        amount: Amount::from_base_units(U256::from(amount)),
        valid_after: U256::ZERO,
        valid_before: U256::from(expiry),
        nonce: AuthorizationNonce::from_bytes(B256::repeat_byte(n)),
    };
    let chain_id: ChainId = "eip155:8453".parse().expect("Base has this id");
    let token_domain =
        TokenDomain { name: TOKEN_NAME.to_owned(), version: TOKEN_VERSION.to_owned() };
    let digest = authorization_digest(chain_id, ASSET, &token_domain, &authorization);
    let signature = signer.sign_hash_sync(&digest).expect("a key in memory signs");
    Settlement {
        settlement_id: settlement_id(n),
        merchant_id: MerchantId::from_uuid(Uuid::nil()),
        version: X402Version::V2,
        chain_id,
        asset: ASSET,
        authorization,
        signature: signature.as_bytes().into(),
        payer_kind: PayerKind::Key,
        simulated_gas: 80_000,
        token_domain,
        digest,
        verified_block: 0,
        status: SettlementStatus::Claimed,
        failure: None,
        n_transactions: 0,
        transaction_hash: None,
        idempotency_key: None,
        is_answered: false,
    }
}
