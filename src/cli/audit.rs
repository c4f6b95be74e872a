//! `quittance audit`.

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use crate::{
    audit::{Filter, Record, Records},
    config::Settings,
    merchants::Merchants,
};

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// Only what is of this merchant, by name or id.
    #[arg(long, value_name = "NAME_OR_ID")]
    merchant: Option<String>,
    /// Only what was done to this: the id of a merchant or a key, or whatever names a thing.
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// How many records, the newest first.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Only records before the one with this number.
    #[arg(long, value_name = "NUMBER")]
    after: Option<i64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: AuditArguments, settings: &Settings) -> anyhow::Result<()> {
    let pool = super::pool(settings).await?;
    let mut filter = Filter { subject: arguments.subject, ..Filter::default() };
    if let Some(name) = &arguments.merchant {
        let merchant = Merchants::new(pool.clone()).named(name).await;
        filter.merchant_id =
            Some(merchant.with_context(|| format!("look for {name:?}"))?.merchant_id);
    }
    let records = Records::new(pool).page(&filter, arguments.after, arguments.limit).await?;
    if arguments.json {
        println!("{}", records.iter().map(Record::shown).collect::<Value>());
        return Ok(());
    }
    for record in &records {
        let Record { audit_id, created_at, actor_kind, actor, origin, action, subject, .. } =
            record;
        println!(
            "{audit_id}  {created_at}  {action}  {subject}  by {actor_kind} {actor} at {origin}"
        );
        for (what, text) in [("was", &record.before), ("is", &record.after)] {
            if let Some(text) = text {
                println!("    {what:<3} {text}");
            }
        }
    }
    Ok(())
}
