//! `quittance merchant`.

use clap::Subcommand;
use serde_json::json;

use crate::{config::Settings, merchants};

#[derive(Debug, Subcommand)]
pub(super) enum MerchantCommand {
    /// Create a merchant.
    Create {
        /// A name of 1 to 200 characters that no other merchant has.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: MerchantCommand, settings: &Settings) -> anyhow::Result<()> {
    let MerchantCommand::Create { name, json } = command;
    if !(1..=200).contains(&name.chars().count()) {
        anyhow::bail!("a merchant's name has 1 to 200 characters");
    }
    let pool = super::pool(settings).await?;
    let mut conn = pool.acquire().await?;
    let merchant_id = merchants::create_merchant(&mut conn, &name).await??;
    if json {
        println!("{}", json!({ "merchantId": merchant_id.as_uuid(), "name": name }));
    } else {
        println!("merchant {merchant_id} ({name})");
        println!("next: quittance key create --merchant {merchant_id}");
    }
    Ok(())
}
