//! Which call misbehaves, and how.

use std::time::Duration;

use super::Refusal;

/// How a method misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers 502 and forwards nothing.
    DropBefore,
    /// Forwards, and answers 502.
    DropAfterForward,
    /// Forwards, and answers this trouble.
    ErrorAfterForward(Trouble),
    /// Forwards after this long. On one call only, it reorders that call behind later ones.
    Delay(Duration),
    /// Forwards this many times, and answers the last answer.
    Duplicate(u32),
    /// Answers as a node would that is this many blocks behind.
    Stale(u64),
    /// Claims to be on this chain.
    ChainId(u64),
    /// Refuses a transaction, in the words of the proxy's dialect, and forwards nothing.
    Refuse(Refusal),
    /// Answers this result, and forwards nothing.
    Answer(&'static str),
    /// Refuses searches for logs over more than ten blocks, as free plans of providers do.
    ShortRange,
    /// Knows no state overrides: refuses an `eth_call` with a third parameter, in geth's words.
    NoOverrides,
    /// Gives an `eth_call` this much gas at most, and does not say so, as geth and reth do.
    GasCap(u64),
    /// Answers nothing for longer than any caller waits.
    BlackHole,
    /// Answers 200 and a page for people.
    WebPage,
    /// Answers 200 and, as JSON-RPC, that there were too many calls.
    RateLimited,
    /// Does not know the method.
    UnknownMethod,
    /// Refuses calls of more than this many bytes.
    ShortCalls(usize),
}

/// What comes back although the node was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// HTTP 502.
    BadGateway,
    /// HTTP 429.
    TooManyRequests,
    /// HTTP 200 and bytes that are no JSON.
    Garbage,
    /// An error in the words of the proxy's dialect.
    Refused(Refusal),
}

/// Stands for every method.
pub(super) const EVERY_METHOD: &str = "*";

/// What misbehaves now, by method.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    method: String,
    fault: Fault,
    /// Calls until the one that misbehaves, itself included; every call does otherwise.
    n_until: Option<u64>,
}

impl Faults {
    /// From now on, in place of whatever the method did.
    pub(super) fn always(&mut self, method: &str, fault: Fault) {
        self.rules.retain(|rule| rule.method != method);
        self.rules.push(Rule { method: method.to_owned(), fault, n_until: None });
    }

    /// The nth call from now, besides whatever the method does.
    pub(super) fn nth(&mut self, method: &str, nth: u64, fault: Fault) {
        self.rules.push(Rule { method: method.to_owned(), fault, n_until: Some(nth) });
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// How this call of `method` misbehaves: what was said of this very call goes before what was
    /// said of its method, and that before what was said of every method.
    pub(super) fn of_call(&mut self, method: &str) -> Option<Fault> {
        let is_about = |rule: &Rule| rule.method == method || rule.method == EVERY_METHOD;
        for rule in self.rules.iter_mut().filter(|rule| is_about(rule)) {
            rule.n_until = rule.n_until.map(|n| n.saturating_sub(1));
        }
        let due = self.rules.iter().position(|rule| is_about(rule) && rule.n_until == Some(0));
        if let Some(due) = due {
            return Some(self.rules.remove(due).fault);
        }
        let always = |name: &str| {
            self.rules.iter().find(|rule| rule.method == name && rule.n_until.is_none())
        };
        always(method).or_else(|| always(EVERY_METHOD)).map(|rule| rule.fault)
    }
}
