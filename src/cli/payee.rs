//! `quittance payee`.

use alloy::primitives::Address;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    config::Settings,
    domain::ChainId,
    merchants::{Merchant, Merchants, Payee, PayeeBook, PayeeProof},
};

use super::actor::actor;

#[derive(Debug, Subcommand)]
pub(super) enum PayeeCommand {
    /// Vouch for an address. From a merchant's first one on, it can be paid at its addresses only.
    Add(PlaceArguments),
    /// Take an address away. The last one stays, because without one any address would do.
    Remove(PlaceArguments),
    /// Show where a merchant may be paid, and what it has proven itself.
    List(ListArguments),
}

#[derive(Debug, Args)]
pub(super) struct PlaceArguments {
    /// The merchant, by name or id.
    #[arg(long, value_name = "NAME_OR_ID")]
    merchant: String,
    /// The chain, such as `eip155:8453`.
    #[arg(long, value_name = "CAIP2", value_parser = network)]
    network: ChainId,
    /// The address.
    address: Address,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// The merchant, by name or id.
    #[arg(long, value_name = "NAME_OR_ID")]
    merchant: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn network(text: &str) -> Result<ChainId, &'static str> {
    text.parse().map_err(|_| "expected CAIP-2, such as eip155:8453")
}

pub(super) async fn run(command: PayeeCommand, settings: &Settings) -> anyhow::Result<()> {
    let pool = super::pool(settings).await?;
    let actor = actor();
    let (book, merchants) = (PayeeBook::new(pool.clone()), Merchants::new(pool));
    match command {
        PayeeCommand::Add(place) => {
            let merchant = merchants.named(&place.merchant).await?;
            let at = (place.network, place.address);
            let added = book.add(&actor, merchant.merchant_id, at, &PayeeProof::Operator);
            show(&merchant, &added.await?, place.json);
        }
        PayeeCommand::Remove(place) => {
            let merchant = merchants.named(&place.merchant).await?;
            let at = (place.network, place.address);
            let left = book.remove(&actor, merchant.merchant_id, at).await?;
            show(&merchant, &left, place.json);
        }
        PayeeCommand::List(list) => {
            let merchant = merchants.named(&list.merchant).await?;
            show(&merchant, &book.of(merchant.merchant_id).await?, list.json);
        }
    }
    Ok(())
}

fn show(merchant: &Merchant, payees: &[Payee], as_json: bool) {
    if as_json {
        let payees: Vec<Value> = payees.iter().map(Payee::shown).collect();
        println!("{}", json!({ "merchantId": merchant.merchant_id.as_uuid(), "payees": payees }));
        return;
    }
    if payees.is_empty() {
        println!("merchant {} may be paid at any address", merchant.merchant_id);
    }
    for payee in payees {
        let word = if payee.is_proven { "proven" } else { "vouched for" };
        println!("{}  {}  {word} {}", payee.chain_id, payee.address, payee.created_at);
    }
}
