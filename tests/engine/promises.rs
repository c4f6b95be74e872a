//! A payer promises the same money, or the same authorization, more than once: what the books say of it.

use alloy::primitives::{Address, U256};
use quittance::{
    domain::{Amount, AuthorizationNonce, SettlementStatus, UnixTime},
    ledger::{PromiseKey, Promised, Promises, promised},
};

use crate::support::World;

/// When the claims of this file expire that are to expire.
const EXPIRY: u64 = 1_000;

/// One settlement, written into the books by hand.
struct Written<'a> {
    payer: u8,
    nonce: u8,
    amount: &'a str,
    status: &'a str,
    block: Option<i64>,
    valid_before: &'a str,
}

impl<'a> Written<'a> {
    fn new(payer: u8, nonce: u8, amount: &'a str, status: &'a str) -> Self {
        Self { payer, nonce, amount, status, block: None, valid_before: "2000" }
    }

    fn in_block(self, block: i64) -> Self {
        Self { block: Some(block), ..self }
    }

    async fn write(&self, world: &World) {
        let hash = self.block.map(|_| vec![9_u8; 32]);
        let reason = (self.status == "failed").then_some("insufficient_funds");
        sqlx::query(
            "insert into settlement (settlement_id, merchant_id, api_key_id, x402_version, scheme,
                chain_id, asset, payer, payee, amount, valid_after, valid_before,
                authorization_nonce, signature, token_name, token_version, digest, verified_block,
                status, failure_reason, transaction_hash, block_hash, block_number)
             select gen_random_uuid(), merchant_id, api_key_id, 2, 'exact', $1, $2, $3, $2,
                $4::numeric, 0, $5::numeric, $6, decode(repeat('00', 65), 'hex'), '', '', $6, 0,
                $7, $8, $9, $9, $10
             from api_key where merchant_id is not null",
        )
        .bind(world.services.chain.chain_id.to_string())
        .bind(asset().to_vec())
        .bind(payer(self.payer).to_vec())
        .bind(self.amount)
        .bind(self.valid_before)
        .bind(vec![self.nonce; 32])
        .bind(self.status)
        .bind(reason)
        .bind(hash)
        .bind(self.block)
        .execute(&world.books)
        .await
        .unwrap();
    }
}

fn asset() -> Address {
    Address::repeat_byte(0xaa)
}

fn payer(n: u8) -> Address {
    Address::repeat_byte(n)
}

fn key(n: u8, nonce: u8) -> PromiseKey {
    let nonce = AuthorizationNonce::from_bytes([nonce; 32].into());
    PromiseKey { asset: asset(), payer: payer(n), nonce }
}

fn amount(base_units: u64) -> Amount {
    Amount::from_base_units(U256::from(base_units))
}

async fn ask(world: &World, keys: &[PromiseKey], now: u64) -> Promises {
    let mut conn = world.books.acquire().await.unwrap();
    let chain_id = world.services.chain.chain_id;
    promised(&mut conn, chain_id, keys, UnixTime::from_seconds(now)).await.unwrap()
}

async fn set_head(world: &World, number: i64) {
    sqlx::query(
        "insert into chain_head (chain_id, number, hash) values ($1, $2, sha256('head'))
         on conflict (chain_id) do update set number = excluded.number",
    )
    .bind(world.services.chain.chain_id.to_string())
    .bind(number)
    .execute(&world.books)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_tell_a_list_of_payments_what_was_promised() {
    let world = World::stepped().await;
    let all = [key(1, 1), key(2, 9), key(1, 7), key(1, 4), key(1, 1), key(3, 1), key(1, 9)];
    let nothing = ask(&world, &all, 0).await;
    assert_eq!(nothing.applied_head, None);
    assert_eq!(nothing.promised, vec![Promised::NOTHING; all.len()]);

    set_head(&world, 100).await;
    let max = U256::MAX.to_string();
    let expiry = EXPIRY.to_string();
    for written in [
        Written::new(1, 1, "1", "claimed"),
        Written::new(1, 2, "20", "submitted"),
        Written { valid_before: &expiry, ..Written::new(1, 3, "300", "claimed") },
        Written::new(1, 4, "4000", "included").in_block(100),
        Written::new(1, 5, "50000", "safe").in_block(100),
        Written::new(1, 6, "600000", "finalized").in_block(69),
        // Not among the newest 32 blocks.
        Written::new(1, 8, "1", "finalized").in_block(68),
        Written::new(1, 7, "7000000", "failed"),
        Written::new(2, 1, &max, "claimed"),
        Written::new(2, 2, "1", "claimed"),
        Written::new(2, 3, &max, "included").in_block(99),
        Written::new(2, 4, &max, "included").in_block(99),
    ] {
        written.write(&world).await;
    }
    use SettlementStatus::{Claimed, Failed, Included};
    let mined = |rest: &[(u64, u64)]| -> Vec<(u64, Amount)> {
        rest.iter().map(|(block, base_units)| (*block, amount(*base_units))).collect()
    };
    let every = mined(&[(69, 600_000), (100, 54_000)]);
    let first = Promised { claimed: Some(Claimed), unmined: amount(320), mined: every.clone() };
    let too_much = Amount::from_base_units(U256::MAX);
    let expected = [
        first.clone(),
        Promised { claimed: None, unmined: too_much, mined: vec![(99, too_much)] },
        Promised { claimed: Some(Failed), unmined: amount(321), mined: every.clone() },
        Promised {
            claimed: Some(Included),
            unmined: amount(321),
            mined: mined(&[(69, 600_000), (100, 50_000)]),
        },
        first,
        Promised::NOTHING,
        Promised { claimed: None, unmined: amount(321), mined: every },
    ];
    let told = ask(&world, &all, EXPIRY - 1).await;
    assert_eq!(told.applied_head, Some(100));
    assert_eq!(told.promised, expected);

    // From its last second on no block can pay it.
    let told = ask(&world, &[key(1, 9), key(1, 3)], EXPIRY).await;
    assert_eq!([told.promised[0].unmined, told.promised[1].unmined], [amount(21), amount(21)]);
    // Another asset, another chain and another block are other questions.
    let other = PromiseKey { asset: Address::ZERO, ..key(1, 1) };
    assert_eq!(ask(&world, &[other], 0).await.promised, [Promised::NOTHING]);
    set_head(&world, 101).await;
    let told = ask(&world, &[key(1, 9)], 0).await;
    assert_eq!(told.promised[0].mined, mined(&[(100, 54_000)]));
    world.stop().await;
}
