//! Several wallets, and what must hold of them and of what they paid once nothing is under way.

use alloy::{
    hex,
    primitives::{Address, keccak256},
};
use quittance::engine::{KeySources, Keys, ensure_wallet};
use serde_json::{Value, json};

use super::World;

/// The words of `anvil-scripts/lib/accounts.mjs`. The configured wallet is the first of their accounts.
const MNEMONIC: &str = "never put real coin behind public test seed only local market token";
/// What a wallet is given to pay gas with.
const WALLET_WEI: u128 = 1_000_000_000_000_000_000;

/// The setting that opens every wallet of a world.
pub const SHARED_KEYS: (&str, &str) = ("QUITTANCE__CHAINS__LOCAL__WALLET_MNEMONIC", MNEMONIC);
/// How long a wallet or a follower is owned without renewal.
pub const LEASE_MS: &str = "QUITTANCE__REPLICA__LEASE_MS";
/// How many transactions of a wallet may be unmined.
pub const N_IN_FLIGHT_MAX: &str = "QUITTANCE__CHAINS__LOCAL__N_IN_FLIGHT_MAX";
/// How many payments may share a transaction.
pub const N_TOGETHER_MAX: &str = "QUITTANCE__CHAINS__LOCAL__N_PAYMENTS_PER_TRANSACTION_MAX";

impl World {
    /// Registers `n` wallets besides the configured one, with gas; services need [`SHARED_KEYS`].
    pub async fn add_wallets(&self, n: u32) {
        let sources = KeySources { mnemonic: Some(MNEMONIC.into()), ..KeySources::default() };
        let keys = Keys::open(sources).unwrap();
        let mut conn = self.books.acquire().await.unwrap();
        for index in 1..=n {
            let address = keys.mnemonic_address(index).unwrap();
            self.node.set_balance(address, WALLET_WEI).await;
            ensure_wallet(&mut conn, self.services.chain.chain_id, address, 0).await.unwrap();
        }
    }

    /// Makes wallets sign nothing for now, as `quittance wallet pause` does.
    pub async fn pause_wallets(&self) {
        let sql = "update wallet set status = 'paused' where status = 'active'";
        sqlx::query(sql).execute(&self.books).await.unwrap();
    }

    /// Lets them sign again, and tells their owners.
    pub async fn resume_wallets(&self) {
        let sql = "update wallet set status = 'active' where status = 'paused'";
        sqlx::query(sql).execute(&self.books).await.unwrap();
        let sql = "select pg_notify('quittance_news', $1)";
        let chain_id = self.services.chain.chain_id.to_string();
        sqlx::query(sql).bind(chain_id).execute(&self.books).await.unwrap();
    }

    /// Every one of these payments moved money on chain, once.
    pub async fn check_paid_once(&self, payments: &[Value]) {
        let mut total = 0;
        for payment in payments {
            let authorization = &payment["paymentPayload"]["payload"]["authorization"];
            let text = |key: &str| authorization[key].as_str().unwrap();
            let payer: Address = text("from").parse().unwrap();
            let used = keccak256("AuthorizationUsed(address,bytes32)");
            let filter = json!([{
                "fromBlock": "0x0", "toBlock": "latest", "address": self.services.chain.usdc,
                "topics": [used, hex::encode_prefixed(payer.into_word()), text("nonce")],
            }]);
            let logs = self.node.call("eth_getLogs", filter).await;
            assert_eq!(logs.as_array().unwrap().len(), 1, "{authorization}: {logs}");
            total += text("value").parse::<u64>().unwrap();
        }
        assert_eq!(self.payee_balance().await, total, "the payee has another sum");
    }

    /// I3 and I4 once nothing is under way: every account nonce that was given out is on chain, and
    /// no other.
    pub async fn check_at_rest(&self) {
        assert_eq!(self.count("select count(*) from transaction where status = 'open'").await, 0);
        let wallets: Vec<(Vec<u8>, i64)> =
            sqlx::query_as("select address, next_account_nonce from wallet")
                .fetch_all(&self.books)
                .await
                .unwrap();
        for (address, next) in wallets {
            let address = Address::from_slice(&address);
            let on_chain = self.node.account_nonce(address).await;
            assert_eq!(i64::try_from(on_chain), Ok(next), "account nonce of wallet {address}");
        }
    }
}
