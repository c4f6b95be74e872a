//! The decision, from both sides of each limit.

use alloy::primitives::{Address, U256};

use super::*;
use crate::policies::{Ending, Subject};

const PAYEE: Address = Address::repeat_byte(0x51);
const KEY: Address = Address::repeat_byte(0x52);
const AT: u64 = 1_000;

fn units(base_units: u64) -> Amount {
    Amount::from_base_units(U256::from(base_units))
}

fn unlimited() -> Limits {
    Limits {
        per_payment: Amount::MAX,
        per_day: Amount::MAX,
        total: Amount::MAX,
        payees: Vec::new(),
        valid_after: U256::ZERO,
        valid_before: U256::MAX,
    }
}

fn with(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = unlimited();
    change(&mut limits);
    limits
}

fn session(key: Address, limits: Limits) -> Session {
    Session { key, limits }
}

fn subject() -> Subject {
    let chain_id = "eip155:8453".parse().unwrap();
    Subject { chain_id, account: Address::repeat_byte(1), asset: Address::repeat_byte(2) }
}

fn in_force(document: Document) -> InForce {
    InForce {
        document,
        policy_id: Uuid::from_u128(1),
        account_id: Uuid::from_u128(2),
        owner: Address::ZERO,
        registered_at: UnixTime::from_seconds(0),
    }
}

fn policy(limits: Limits, sessions: Vec<Session>) -> InForce {
    let (nonce, owner) = (U256::from(1), Address::ZERO);
    in_force(Document::Policy(SpendingPolicy {
        subject: subject(),
        nonce,
        owner,
        limits,
        sessions,
    }))
}

fn plan(in_force: &InForce, amount: u64) -> Result<Option<Plan>, Refusal> {
    let at = UnixTime::from_seconds(AT);
    in_force.plan(&Spending { payee: PAYEE, amount: units(amount), signers: &[KEY], at })
}

#[test]
fn reasons_come_in_their_order_of_policies_and_of_sessions() {
    let wrong_payee = |limits: &mut Limits| limits.payees = vec![KEY];
    let over = |limits: &mut Limits| limits.valid_before = U256::from(AT);
    let small = |limits: &mut Limits| limits.per_payment = units(9);
    let any = Address::ZERO;
    use InvalidReason::{PolicyExceeded, PolicyExpired, PolicyPayee};
    for (limits, sessions, reason) in [
        (unlimited(), vec![], None),
        (with(small), vec![], Some(PolicyExceeded)),
        (with(over), vec![session(any, with(small))], Some(PolicyExpired)),
        (with(over), vec![session(any, with(wrong_payee))], Some(PolicyPayee)),
        (with(wrong_payee), vec![session(PAYEE, unlimited())], Some(PolicyPayee)),
        (unlimited(), vec![session(PAYEE, unlimited())], Some(PolicyExpired)),
        (unlimited(), vec![session(any, with(over))], Some(PolicyExpired)),
        (with(small), vec![session(any, with(over))], Some(PolicyExpired)),
        (unlimited(), vec![session(any, with(small))], Some(PolicyExceeded)),
        // Of several, what is wrong with the one that comes closest.
        (
            unlimited(),
            vec![session(KEY, with(wrong_payee)), session(any, with(over))],
            Some(PolicyExpired),
        ),
        (
            unlimited(),
            vec![session(any, with(over)), session(KEY, with(small))],
            Some(PolicyExceeded),
        ),
        (unlimited(), vec![session(any, with(over)), session(KEY, unlimited())], None),
    ] {
        let told = plan(&policy(limits.clone(), sessions.clone()), 10).err();
        let told = told.map(|refusal| refusal.reason);
        assert_eq!(told, reason, "{limits:?} {sessions:?}");
    }
}

#[test]
fn windows_and_amounts_have_two_sides() {
    let opens = |second| with(|limits| limits.valid_after = U256::from(second));
    let closes = |second| with(|limits| limits.valid_before = U256::from(second));
    for (limits, is_good) in [
        (opens(AT), true),
        (opens(AT + 1), false),
        (closes(AT + 1), true),
        (closes(AT), false),
        (with(|limits| limits.per_payment = units(10)), true),
        (with(|limits| limits.per_payment = units(9)), false),
    ] {
        assert_eq!(plan(&policy(limits.clone(), vec![]), 10).is_ok(), is_good, "{limits:?}");
    }
    let ending = Ending { subject: subject(), nonce: U256::from(2) };
    assert!(plan(&in_force(Document::Revocation(ending)), 10).is_err());
    assert_eq!(plan(&in_force(Document::Release(ending)), 10), Ok(None));
}

#[test]
fn what_is_used_decides_and_what_is_unknown_is_used_up() {
    let of_ten = || with(|limits| limits.total = units(10));
    let sessions = || vec![session(KEY, of_ten()), session(Address::ZERO, of_ten())];
    let [none, half, all] = [0, 5, 10].map(units);
    for (limits, sessions, used, chosen) in [
        (of_ten(), vec![], vec![none, half], Some(&[][..])),
        (of_ten(), vec![], vec![none, units(6)], None),
        (of_ten(), vec![], vec![none], None),
        // Beyond any limit, and without one.
        (unlimited(), vec![], vec![Amount::MAX, Amount::MAX], Some(&[])),
        (unlimited(), sessions(), vec![none, none, none, half, none, none], Some(&["session 0"])),
        (unlimited(), sessions(), vec![none, none, none, all, none, half], Some(&["session 1"])),
        (unlimited(), sessions(), vec![none, none, none, all, none, all], None),
        (unlimited(), sessions(), vec![none, none, none, all], None),
        (of_ten(), sessions(), vec![none, all, none, none, none, none], None),
    ] {
        let plan = plan(&policy(limits, sessions), 5).unwrap().unwrap();
        let purses = plan.choose(&used);
        let found = purses.as_ref().ok().map(|purses| {
            assert_eq!(purses.iter().filter(|purse| purse.subject.is_empty()).count(), 2);
            let named = purses.iter().filter(|purse| purse.span == Span::Total);
            let named = named.map(|purse| &*purse.subject).filter(|subject| !subject.is_empty());
            named.collect::<Vec<_>>()
        });
        assert_eq!(found.as_deref(), chosen, "{used:?}: {purses:?}");
    }
}
