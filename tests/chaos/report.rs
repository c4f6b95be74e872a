//! What a person reads when a run is over: counts, and the story of each offending settlement.

use std::{collections::BTreeMap, fmt::Write as _};

use uuid::Uuid;

use crate::{
    checker::{Payments, Violation},
    record::{Heard, Run},
};

/// How much happened.
pub(crate) fn counts(run: &Run, done: &BTreeMap<&'static str, u64>, n_payments: u64) -> String {
    let mut text = format!("{n_payments} payments, {} requests\n", run.history.len());
    let mut heard: BTreeMap<String, u64> = BTreeMap::new();
    for asked in &run.history {
        *heard.entry(name(&asked.heard)).or_default() += 1;
    }
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    for settlement in &run.books.settlements {
        *statuses.entry(settlement.status.clone()).or_default() += 1;
    }
    let orphaned = Payments::read(&run.orphaned, run.asset).iter().count();
    let by_others = run.books.evidence.iter().filter(|evidence| !evidence.by_us).count();
    let (n_sent, n_blocks) = (run.sent.len(), run.blocks.len());
    let (n_transactions, n_attempts) = (run.books.transactions.len(), run.books.attempts.len());
    let epochs = run.books.epochs.iter().map(|(lease, epoch)| format!("{lease} {epoch}"));
    let epochs = epochs.collect::<Vec<_>>().join(", ");
    writeln!(text, "done: {done:?}\nheard: {heard:?}\nsettlements: {statuses:?}").unwrap();
    writeln!(text, "{n_transactions} transactions, {n_attempts} attempts, sent {n_sent} times")
        .unwrap();
    writeln!(text, "{n_blocks} blocks, {} removed with {orphaned} payments", run.orphaned.len())
        .unwrap();
    writeln!(text, "{by_others} payments by others; epochs: {epochs}").unwrap();
    text
}

fn name(heard: &Heard) -> String {
    let name = match heard {
        Heard::Paid { is_replay: false, .. } => "paid",
        Heard::Paid { is_replay: true, .. } => "paid, again",
        Heard::Duplicate => "duplicate",
        Heard::Refused(reason) => reason,
        Heard::Pending => "pending",
        Heard::Unavailable => "503",
        Heard::Unreachable => "unreachable",
        Heard::CutOff => "cut off",
        Heard::HungUp => "hung up",
        Heard::Dropped(_) => "dropped",
        Heard::Silence => "silence",
        Heard::Strange(_) => "strange",
    };
    name.to_owned()
}

/// What happened to one settlement, in order.
pub(crate) fn timeline(run: &Run, settlement: Uuid) -> String {
    let mut lines: Vec<(u64, String)> = Vec::new();
    let row = run.books.settlements.iter().find(|row| row.id == settlement);
    let Some(row) = row else { return format!("{settlement} is not in the books") };
    for event in run.books.events.iter().filter(|event| event.settlement == settlement) {
        let (hash, why) = (event.transaction_hash, event.detail.as_deref().unwrap_or_default());
        lines.push((event.at_ms, format!("became {} {hash:?} {why}", event.to)));
    }
    for asked in run.history.iter().filter(|asked| asked.identity == row.identity) {
        let (caller, replica, key) = (asked.caller, asked.replica, &asked.key);
        lines.push((asked.at_ms, format!("caller {caller} asks replica {replica} under {key:?}")));
        lines.push((asked.ended_ms, format!("caller {caller} hears {:?}", asked.heard)));
    }
    for transaction in &run.books.transactions {
        if !transaction.settlements.contains(&settlement) {
            continue;
        }
        let (wallet, nonce) = (transaction.wallet, transaction.account_nonce);
        let attempts = run.books.attempts.iter().filter(|a| a.transaction == transaction.id);
        for attempt in attempts {
            let (hash, status) = (attempt.hash, &transaction.status);
            let stored = format!("stored {hash} of wallet {wallet} nonce {nonce}, now {status}");
            lines.push((attempt.created_ms, stored));
            let sent = run.sent.iter().filter(|sent| sent.hash == hash);
            lines.extend(sent.map(|sent| (sent.at_ms, format!("sent {hash}"))));
        }
    }
    lines.sort();
    let mut text = format!("{row:?}\n");
    for (at_ms, what) in lines {
        writeln!(text, "  {at_ms} {what}").unwrap();
    }
    for (of, blocks) in [("canonical", &run.blocks), ("removed", &run.orphaned)] {
        for paid in Payments::read(blocks, run.asset).of(row.identity) {
            writeln!(text, "  {of}: {paid:?}").unwrap();
        }
    }
    for entry in run.books.entries.iter().filter(|entry| entry.settlement == settlement) {
        writeln!(text, "  {entry:?}").unwrap();
    }
    text
}

/// Every violation, and the stories of the settlements that they are about.
pub(crate) fn complaint(run: &Run, violations: &[Violation]) -> String {
    let mut text = String::new();
    for violation in violations {
        writeln!(text, "{}: {}", violation.invariant, violation.what).unwrap();
    }
    let mut concerned: Vec<Uuid> = violations.iter().filter_map(|v| v.settlement).collect();
    concerned.sort_unstable();
    concerned.dedup();
    for settlement in concerned {
        writeln!(text, "\n{}", timeline(run, settlement)).unwrap();
    }
    text
}
