//! Whole requests, signed and written out before anything is measured.

use std::sync::atomic::{AtomicUsize, Ordering};

use alloy::primitives::{Address, B256, U256, keccak256};
use quittance::{
    app::dev::{Account, Buyer},
    domain::{Amount, Authorization},
};
use serde_json::{Value, json};

use crate::support::{World, now};

const N_PAYERS: usize = 2_000;
/// How many payments each of them signs. All together they last for ten seconds at the speed that is
/// aimed at; then they are sent again.
const N_NONCES: usize = 64;
/// Longer than all runs together.
const VALID_SECONDS: u64 = 4 * 3_600;
const AMOUNT: &str = "1000";
/// What payers of the local chain hold.
const BALANCE: u64 = 1_000_000_000;
/// Where Circle's `FiatTokenV2_2` keeps balances: `balanceAndBlacklistStates`.
const BALANCES_SLOT: u64 = 9;
/// How many storage slots are written in one call.
const N_WRITES_AT_ONCE: usize = 500;

/// Requests, each the bytes of one `POST /verify`.
pub struct Requests {
    bytes: Vec<Box<[u8]>>,
    next: AtomicUsize,
}

impl Requests {
    /// The next request; after the last one the first again.
    pub fn next(&self) -> &[u8] {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        &self.bytes[n % self.bytes.len()]
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Payers that hold the token.
pub struct Payers(Vec<Buyer>);

impl Payers {
    /// Makes payers and gives them money.
    pub async fn fund(world: &World) -> Self {
        let chain = &world.services.chain;
        let payers: Vec<Buyer> = (0..N_PAYERS)
            .map(|n| {
                let private_key = keccak256(format!("a payer of benches/verify {n}")).to_string();
                let account = Account { address: Address::ZERO, private_key };
                Buyer::new(&account, chain.market()).unwrap()
            })
            .collect();
        let http = reqwest::Client::new();
        for some in payers.chunks(N_WRITES_AT_ONCE) {
            let writes: Vec<Value> = some
                .iter()
                .map(|payer| {
                    let key = [payer.address().into_word(), U256::from(BALANCES_SLOT).into()];
                    let slot = keccak256(key.concat());
                    let params = json!([chain.usdc, slot, B256::from(U256::from(BALANCE))]);
                    json!({ "jsonrpc": "2.0", "id": 1, "method": "anvil_setStorageAt", "params": params })
                })
                .collect();
            let sent = http.post(world.node.url()).json(&writes).send().await.unwrap();
            assert!(sent.status().is_success());
            let _ = sent.bytes().await.unwrap();
        }
        let last = payers.last().unwrap().address();
        assert_eq!(world.node.token_balance(chain.usdc, last).await, BALANCE);
        Self(payers)
    }

    /// Payments that are valid. With `asked` other than what was signed for, ones that are refused
    /// when all that needs no chain has been checked.
    pub fn sign(&self, world: &World, asked: Asked) -> Requests {
        let payee = world.services.chain.payee.address;
        let amount = Amount::parse(AMOUNT).unwrap();
        let valid_before = now().saturating_add(std::time::Duration::from_secs(VALID_SECONDS));
        let written = |buyer: &Buyer| {
            let authorization = Authorization {
                valid_before: valid_before.as_u256(),
                ..buyer.authorization(payee, amount, now())
            };
            let mut request = buyer.request(&authorization).unwrap();
            if asked == Asked::OtherAmount {
                request["paymentRequirements"]["amount"] = json!("1001");
            }
            http_request(world.keys.merchant.reveal(), &request.to_string())
        };
        let n_threads = std::thread::available_parallelism().unwrap().get();
        let bytes = std::thread::scope(|scope| {
            let share = self.0.len().div_ceil(n_threads);
            let signers: Vec<_> = self
                .0
                .chunks(share)
                .map(|payers| {
                    let sign_all = || (0..N_NONCES).flat_map(|_| payers.iter().map(written));
                    scope.spawn(move || sign_all().collect::<Vec<_>>())
                })
                .collect();
            let mut parts: Vec<_> =
                signers.into_iter().map(|signer| signer.join().unwrap()).collect();
            interleaved(&mut parts)
        });
        Requests { bytes, next: AtomicUsize::new(0) }
    }
}

/// What a merchant asks of the payments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// What was signed for.
    Signed,
    /// Another amount.
    OtherAmount,
}

/// Neighbours are of different payers.
fn interleaved(parts: &mut [Vec<Box<[u8]>>]) -> Vec<Box<[u8]>> {
    let mut all = Vec::with_capacity(parts.iter().map(Vec::len).sum());
    while parts.iter().any(|part| !part.is_empty()) {
        all.extend(parts.iter_mut().filter_map(Vec::pop));
    }
    all
}

/// With the headers that a JavaScript resource server sends.
fn http_request(api_key: &str, body: &str) -> Box<[u8]> {
    let head = format!(
        "POST /verify HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: keep-alive\r\n\
         content-type: application/json\r\nauthorization: Bearer {api_key}\r\naccept: */*\r\n\
         accept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\n\
         accept-encoding: gzip, deflate\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + body).into_bytes().into_boxed_slice()
}
