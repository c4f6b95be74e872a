//! Caps, as operators set them, and what must hold of their counters.

use std::time::Duration;

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tokio::process::Command;

use super::{World, now};

/// Counters of caps that are not what was claimed in their window and did not fail.
const WRONG_COUNTERS: &str = "select count(*)
    from budget_counter counter
        join cap on cap_id = rule_id
        cross join lateral (
            select count(*) as n, coalesce(sum(amount), 0) as amount from budget_hold
            where budget_hold.counter_id = counter.counter_id and is_released) as released
        cross join lateral (
            select count(*) as n, coalesce(sum(settlement.amount), 0) as amount from settlement
            where status <> 'failed' and settlement.created_at >= window_start
                and settlement.created_at < window_start
                    + case period when 'hour' then interval '1 hour' else interval '24 hours' end
                and (cap.chain_id is null or settlement.chain_id = cap.chain_id)
                and (cap.asset is null or settlement.asset = cap.asset)
                and counter.subject = case cap.subject
                    when 'merchant' then 'merchant:' || settlement.merchant_id
                    when 'key' then 'key:' || settlement.api_key_id
                    when 'payer' then 'payer:0x' || encode(settlement.payer, 'hex')
                    else 'payer:0x' || encode(settlement.payer, 'hex') || '@' || settlement.merchant_id
                end) as truth
    where counter.n_payments - released.n <> truth.n
        or counter.amount - released.amount <> truth.amount";

/// Days on which merchants or payers are not told to have cost what the ledger says.
const WRONG_GAS: &str = "select count(*)
    from (
        select chain_id, spender, sum(case kind when 'post' then ledger_entry.amount
            else -ledger_entry.amount end) as wei
        from ledger_entry join settlement using (settlement_id)
            cross join lateral (values ('merchant:' || merchant_id),
                ('payer:0x' || encode(payer, 'hex'))) as whose (spender)
        where ledger_entry.subject = 'gas'
        group by chain_id, spender) as posted
        full join (select chain_id, subject as spender, sum(wei) as wei from gas_spent
            group by chain_id, subject) as spent using (chain_id, spender)
    where posted.wei is distinct from spent.wei";

impl World {
    /// `quittance` with those arguments and `--json`, which has to succeed: what it prints.
    pub async fn operator(&self, arguments: &[&str]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_quittance"))
            .args(arguments)
            .arg("--json")
            .envs(self.environment())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Sets a cap with those arguments of `quittance cap set`, and returns its id.
    pub async fn cap(&self, arguments: &[&str]) -> String {
        let cap = self.operator(&[&["cap", "set"], arguments].concat()).await;
        cap["capId"].as_str().unwrap().to_owned()
    }

    /// The token that everybody pays in, as the command line names it.
    pub fn usdc(&self) -> String {
        format!("{}/{}", self.services.chain.chain_id, self.services.chain.usdc)
    }

    /// Everything that was claimed so far lies so much longer ago: `1 hour` or `24 hours`.
    pub async fn pass(&self, interval: &str) {
        for (table, column) in [
            ("settlement", "created_at"),
            ("budget_counter", "window_start"),
            ("cap", "created_at"),
        ] {
            let sql = format!("update {table} set {column} = {column} - interval '{interval}'");
            sqlx::query(AssertSqlSafe(sql)).execute(&self.books).await.unwrap();
        }
        let sql = "update gas_spent set day = day - 1 where $1 = '24 hours'";
        sqlx::query(sql).bind(interval).execute(&self.books).await.unwrap();
    }

    /// What counts by the hour is not to be cut by a full one: waits where one is close.
    pub async fn far_from_a_full_hour(&self) {
        let left = 3_600 - now().seconds() % 3_600;
        if left < 100 {
            tokio::time::sleep(Duration::from_secs(left + 1)).await;
        }
    }

    /// Caps count what was claimed and did not fail, and gas budgets what was posted.
    pub async fn check_caps(&self) {
        for (what, sql) in [("a counter is wrong", WRONG_COUNTERS), ("gas is wrong", WRONG_GAS)] {
            assert_eq!(self.count(sql).await, 0, "{what}");
        }
    }
}
