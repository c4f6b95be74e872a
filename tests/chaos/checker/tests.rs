//! Each check can fail: a run in which all is well, and what is noticed when one thing in it is not.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256, keccak256};
use uuid::Uuid;

use super::violations;
use crate::record::{
    Asked, Attempt, Block, Books, Entry, Event, Evidence, Heard, Identity, Log, Mined, Run, Sent,
    Settlement, Tier, Transaction, Wallet,
};

const ASSET: Address = Address::repeat_byte(0xaa);
const PAYEE: Address = Address::repeat_byte(0xee);
const WALLET: Address = Address::repeat_byte(0x11);
const PAYER: Address = Address::repeat_byte(0xbb);
const FEE_WEI: u64 = 700;
/// The block that was removed, the one in its place, and the one above.
const OLD: B256 = B256::repeat_byte(0xd0);
const NEW: B256 = B256::repeat_byte(0xd1);
const LAST: B256 = B256::repeat_byte(0xd2);
/// The stranger's transaction.
const THEIRS: B256 = B256::repeat_byte(0x78);

/// Of these three, the first was paid by transaction 0, removed, and paid again by the same bytes;
/// the second failed after transaction 1 paid nobody; the third a stranger paid.
const PAID: usize = 0;
const FAILED: usize = 1;
const BY_STRANGER: usize = 2;

fn id(n: usize) -> Uuid {
    Uuid::from_u128(u128::try_from(n).unwrap() + 1)
}

fn hash(n: u8) -> B256 {
    B256::repeat_byte(n)
}

fn identity(n: usize) -> Identity {
    Identity { payer: PAYER, nonce: keccak256(id(n)) }
}

fn amount(n: usize) -> U256 {
    U256::from(1_000 + n)
}

fn payment(n: usize) -> Vec<Log> {
    let log = |index, topics, data| Log { index, address: ASSET, topics, data };
    let used = keccak256("AuthorizationUsed(address,bytes32)");
    let transfer = keccak256("Transfer(address,address,uint256)");
    vec![
        log(4, vec![used, PAYER.into_word(), identity(n).nonce], Vec::new()),
        log(5, vec![transfer, PAYER.into_word(), PAYEE.into_word()], amount(n).to_be_bytes_vec()),
    ]
}

fn mined(hash: B256, sender: Address, account_nonce: u64, logs: Vec<Log>) -> Mined {
    Mined { hash, sender, account_nonce, fee_wei: U256::from(FEE_WEI), logs }
}

fn settlement(n: usize, status: &str, evidence: Option<(B256, B256)>) -> Settlement {
    Settlement {
        id: id(n),
        identity: identity(n),
        payee: PAYEE,
        amount: amount(n),
        valid_before_s: 100,
        status: status.to_owned(),
        transaction_hash: evidence.map(|(transaction, _)| transaction),
        block_hash: evidence.map(|(_, block)| block),
        n_transactions: 1,
        n_alone: 1,
    }
}

fn events(n: usize, story: &[(u64, &str, Option<B256>)]) -> Vec<Event> {
    let event = |(at_ms, to, transaction_hash): &(u64, &str, Option<B256>)| Event {
        settlement: id(n),
        to: (*to).to_owned(),
        transaction_hash: *transaction_hash,
        detail: None,
        at_ms: *at_ms,
    };
    story.iter().map(event).collect()
}

fn entries(n: usize, kinds: &[(&str, Option<B256>)]) -> Vec<Entry> {
    let entry = |(kind, block_hash): &(&str, Option<B256>)| Entry {
        settlement: id(n),
        is_gas: false,
        kind: (*kind).to_owned(),
        debit: format!("payer:{PAYER:#x}"),
        credit: format!("payee:{PAYEE:#x}"),
        amount: amount(n),
        transaction: None,
        block_hash: *block_hash,
    };
    kinds.iter().map(entry).collect()
}

fn gas(n: usize, transaction: i64, kind: &str) -> Entry {
    let amount = U256::from(FEE_WEI);
    let kind = kind.to_owned();
    let transaction = Some(transaction);
    Entry { settlement: id(n), is_gas: true, kind, amount, transaction, ..Entry::default() }
}

fn transaction(n: i64, settlement: usize) -> Transaction {
    Transaction {
        id: n,
        wallet: 1,
        account_nonce: u64::try_from(n).unwrap(),
        status: "finalized".to_owned(),
        epoch: 3 + n,
        mined_hash: Some(hash(u8::try_from(n).unwrap())),
        settlements: vec![id(settlement)],
    }
}

fn attempt(n: u8) -> Attempt {
    Attempt {
        hash: hash(n),
        transaction: n.into(),
        raw: vec![n],
        gas_limit: 200_000,
        fee_wei_max: 50_000_000,
        created_ms: 10,
    }
}

fn asked(n: usize, key: Option<&str>, heard: Heard) -> Asked {
    Asked {
        identity: identity(n),
        caller: 0,
        key: key.map(str::to_owned),
        wait_for: Tier::Included,
        replica: 0,
        at_ms: 5_000,
        ended_ms: 30_000,
        heard,
    }
}

fn heard_paid(transaction: u8) -> Heard {
    Heard::Paid { transaction_hash: hash(transaction), is_replay: false }
}

/// A run in which all is well. Times are milliseconds; everything expires at second 100.
fn run() -> Run {
    let stranger = Address::repeat_byte(0x77);
    let block = |hash, transactions| Block { hash, transactions };
    let sent = |n: u8| Sent { at_ms: 30, hash: hash(n), raw: vec![n], was_stored: Some(true) };
    let before = U256::from(1_000_000);
    Run {
        history: vec![
            asked(PAID, Some("order"), Heard::Pending),
            asked(PAID, Some("order"), heard_paid(0)),
            asked(FAILED, None, Heard::Refused("invalid_exact_evm_nonce_already_used".to_owned())),
            asked(BY_STRANGER, None, heard_paid(0x78)),
        ],
        blocks: vec![
            block(
                NEW,
                vec![
                    mined(hash(0), WALLET, 0, payment(PAID)),
                    mined(hash(1), WALLET, 1, Vec::new()),
                ],
            ),
            block(LAST, vec![mined(THEIRS, stranger, 0, payment(BY_STRANGER))]),
        ],
        orphaned: vec![block(OLD, vec![mined(hash(0), WALLET, 0, payment(PAID))])],
        books: books(),
        sent: vec![sent(0), sent(1)],
        asset: ASSET,
        balances_wei: BTreeMap::from([(WALLET, (before, before - U256::from(2 * FEE_WEI)))]),
        payee: PAYEE,
        payee_gain: amount(PAID) + amount(BY_STRANGER),
    }
}

fn books() -> Books {
    let evidence = |n, block_hash, transaction_hash, by_us| Evidence {
        settlement: id(n),
        block_hash,
        log_index: 4,
        transaction_hash,
        by_us,
    };
    Books {
        settlements: vec![
            settlement(PAID, "finalized", Some((hash(0), NEW))),
            settlement(FAILED, "failed", None),
            settlement(BY_STRANGER, "finalized", Some((THEIRS, LAST))),
        ],
        events: all_events(),
        entries: all_entries(),
        wallets: vec![Wallet {
            id: 1,
            address: WALLET,
            status: "active".to_owned(),
            next_account_nonce: 2,
        }],
        transactions: vec![transaction(0, PAID), transaction(1, FAILED)],
        attempts: vec![attempt(0), attempt(1)],
        evidence: vec![
            evidence(PAID, NEW, hash(0), true),
            evidence(BY_STRANGER, LAST, THEIRS, false),
        ],
        epochs: BTreeMap::from([("wallet:1".to_owned(), 4)]),
    }
}

fn all_events() -> Vec<Event> {
    [
        events(
            PAID,
            &[
                (10, "claimed", None),
                (20, "submitted", Some(hash(0))),
                (10_000, "included", Some(hash(0))),
                (20_000, "submitted", None),
                (90_000, "included", Some(hash(0))),
                (95_000, "safe", Some(hash(0))),
                (99_000, "finalized", Some(hash(0))),
            ],
        ),
        events(
            FAILED,
            &[(10, "claimed", None), (20, "submitted", Some(hash(1))), (9_000, "failed", None)],
        ),
        events(BY_STRANGER, &[(10, "claimed", None), (9_000, "included", Some(THEIRS))]),
    ]
    .concat()
}

fn all_entries() -> Vec<Entry> {
    [
        entries(
            PAID,
            &[("pending", None), ("post", Some(OLD)), ("reverse", Some(OLD)), ("post", Some(NEW))],
        ),
        entries(FAILED, &[("pending", None), ("void", None)]),
        entries(BY_STRANGER, &[("pending", None), ("post", Some(LAST))]),
        vec![
            gas(PAID, 0, "post"),
            gas(PAID, 0, "reverse"),
            gas(PAID, 0, "post"),
            gas(FAILED, 1, "post"),
        ],
    ]
    .concat()
}

/// The invariants that are broken, in order, each once.
fn broken(run: &Run) -> Vec<&'static str> {
    let mut broken: Vec<_> = violations(run).into_iter().map(|v| v.invariant).collect();
    broken.dedup();
    broken
}

#[test]
fn nothing_is_wrong_with_a_run_in_which_all_is_well() {
    assert_eq!(violations(&run()), []);
}

/// What was done to a run, how, and which invariants that breaks.
type Doctored = (&'static str, fn(&mut Run), &'static [&'static str]);

fn check(cases: &[Doctored]) {
    for (what, doctor, expected) in cases {
        let mut run = run();
        doctor(&mut run);
        assert_eq!(broken(&run), *expected, "{what}: {:#?}", violations(&run));
    }
}

#[test]
fn wrong_books_are_noticed() {
    let cases: &[Doctored] = &[
        ("posted twice", |run| run.books.entries.push(run.books.entries[3].clone()), &["I1"]),
        ("reversed in another block", |run| run.books.entries[2].block_hash = None, &["I1"]),
        ("voided while posted", |run| run.books.entries[4].settlement = id(PAID), &["I1"]),
        (
            "two rows of one payment",
            |run| {
                let second = Settlement { id: id(7), ..run.books.settlements[FAILED].clone() };
                run.books.settlements.push(second);
                run.books.events.extend(events(7, &[(9_000, "failed", None)]));
            },
            &["I1"],
        ),
        ("not posted again", |run| drop(run.books.entries.remove(3)), &["I2"]),
        ("not reversed", |run| drop(run.books.entries.drain(2..4)), &["I2"]),
        ("another amount", |run| run.books.entries[3].amount = U256::from(1), &["I2"]),
        ("another payee", |run| run.books.entries[3].credit = "payee:0x00".to_owned(), &["I2"]),
        (
            "paid, and no log says so",
            |run| run.blocks[1].transactions[0].logs.clear(),
            &["I2", "I6"],
        ),
        (
            "paid twice",
            |run| {
                let again = run.blocks[1].transactions[0].logs.clone();
                run.blocks[0].transactions[1].logs = again;
            },
            &["I2"],
        ),
        ("the payee has less", |run| run.payee_gain -= U256::from(1), &["I2"]),
        (
            "evidence of a removed block",
            |run| run.books.evidence[0].block_hash = hash(0xd0),
            &["I2"],
        ),
        ("evidence of a stranger as ours", |run| run.books.evidence[1].by_us = true, &["I2"]),
        (
            "failed and paid",
            |run| {
                run.books.settlements[BY_STRANGER].status = "failed".to_owned();
            },
            &["I2", "I5"],
        ),
        ("failed without proof", |run| run.books.events[1].to = "failed".to_owned(), &["I5"]),
        (
            "no outcome",
            |run| {
                run.books.settlements[FAILED].status = "claimed".to_owned();
                run.books.events.retain(|event| event.to != "failed");
            },
            &["I8"],
        ),
        (
            "an outcome too late",
            |run| {
                let failed = run.books.events.iter_mut().find(|event| event.to == "failed");
                failed.unwrap().at_ms = 160_001;
            },
            &["I8"],
        ),
    ];
    check(cases);
}

#[test]
fn wrong_transactions_are_noticed() {
    let cases: &[Doctored] = &[
        ("sent and not stored", |run| run.sent[0].hash = hash(9), &["I3"]),
        ("sent before it was stored", |run| run.sent[0].was_stored = Some(false), &["I3"]),
        ("stored later than sent", |run| run.books.attempts[0].created_ms = 31, &["I3"]),
        ("other bytes stored", |run| run.books.attempts[0].raw = vec![9], &["I3"]),
        (
            "mined and not stored",
            |run| {
                run.orphaned[0].transactions[0].hash = hash(9);
            },
            &["I3"],
        ),
        ("a gap", |run| run.books.wallets[0].next_account_nonce = 3, &["I4"]),
        (
            "a nonce twice",
            |run| {
                run.books.transactions[1].account_nonce = 0;
            },
            &["I4"],
        ),
        (
            "the chain used it for another",
            |run| {
                run.books.transactions[1].mined_hash = Some(hash(0));
            },
            &["I4"],
        ),
        (
            "a wallet quarantined without reason",
            |run| {
                run.books.wallets[0].status = "quarantined".to_owned();
            },
            &["I4"],
        ),
        ("an epoch that falls", |run| run.books.transactions[1].epoch = 2, &["I9"]),
        ("an epoch beyond the lease", |run| run.books.transactions[1].epoch = 5, &["I9"]),
        (
            "too many transactions",
            |run| run.books.settlements[FAILED].n_transactions = 13,
            &["I10"],
        ),
        ("too often alone", |run| run.books.settlements[FAILED].n_alone = 4, &["I10"]),
        ("too high an offer", |run| run.books.attempts[0].fee_wei_max = 100_000_000_001, &["I10"]),
        ("too much gas", |run| run.books.attempts[0].gas_limit = 16_777_217, &["I10"]),
        ("gas that nobody booked", |run| drop(run.books.entries.pop()), &["I10"]),
        (
            "gas not taken back",
            |run| {
                run.books.entries.retain(|entry| !(entry.is_gas && entry.kind == "reverse"));
            },
            &["I10"],
        ),
        (
            "a wallet that lost more",
            |run| {
                run.balances_wei.insert(WALLET, (U256::from(9_999), U256::ZERO));
            },
            &["I10"],
        ),
    ];
    check(cases);
}

#[test]
fn wrong_answers_are_noticed() {
    let cases: &[Doctored] = &[
        ("success without evidence", |run| run.history[1].heard = heard_paid(1), &["I6"]),
        ("success without a settlement", |run| run.history[3].identity = identity(9), &["I6"]),
        ("success before the block", |run| run.history[1].ended_ms = 9_999, &["I6"]),
        (
            "success after the block was gone",
            |run| {
                (run.history[1].at_ms, run.history[1].ended_ms) = (23_000, 25_000);
            },
            &["I6"],
        ),
        ("success above the depth", |run| run.history[1].wait_for = Tier::Safe, &["I6"]),
        (
            "success and failure under one key",
            |run| {
                let refused = Heard::Refused("invalid_exact_evm_nonce_already_used".to_owned());
                run.history[3].key = Some("other".to_owned());
                run.history.push(asked(BY_STRANGER, Some("other"), refused));
            },
            &["I7"],
        ),
        (
            "a duplicate of its own key",
            |run| {
                run.history.push(asked(PAID, Some("order"), Heard::Duplicate));
            },
            &["I7"],
        ),
        (
            "success twice without a key",
            |run| {
                run.history.push(asked(BY_STRANGER, None, heard_paid(0x78)));
            },
            &["I7"],
        ),
        ("silence", |run| run.history[0].heard = Heard::Silence, &["I11"]),
        (
            "a lost connection",
            |run| {
                run.history[0].heard = Heard::Dropped("reset".to_owned());
            },
            &["I11"],
        ),
        ("an odd answer", |run| run.history[0].heard = Heard::Strange("500".to_owned()), &["I11"]),
        ("a late answer", |run| run.history[2].ended_ms = 35_001, &["I11"]),
        (
            "a caller without an outcome",
            |run| {
                run.history[2].heard = Heard::Unavailable;
            },
            &["I11"],
        ),
    ];
    check(cases);
}
