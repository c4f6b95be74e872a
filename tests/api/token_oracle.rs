//! `/verify` says of random payments what the real token says of them at the same block.
//!
//! No block is built meanwhile. The differences that are meant are few, and named in [`is_meant`]: whoever
//! is refused for another reason must be refused by the token, and whoever is accepted accepted by it.
//!
//! `PROOF_CASES` sets the number of payments and `PROOF_SEED` repeats a run.

use std::{collections::BTreeMap, time::Duration};

use alloy::{
    hex,
    primitives::{Address, B256, Bytes, U256},
};
use futures_util::future::join_all;
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    sample::select,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use quittance::{
    app::dev::Account,
    chain::{contract_transfer_calldata, transfer_calldata},
    domain::{Amount, Authorization, AuthorizationNonce, TokenDomain},
    verify::{EcdsaSignature, MINING_MARGIN, authorization_digest},
};
use serde_json::{Value, json};

use crate::{
    payments::{AMOUNT, NOWHERE, Recipe, Version, high_s_twin, signature, with_signature},
    support::{Service, World, in_wrapper, now, of_key_zero},
};

const CASES: &str = "PROOF_CASES";
const SEED: &str = "PROOF_SEED";
const N_CASES: usize = 600;
/// How many are asked at a time.
const N_TOGETHER: usize = 120;
/// The wallet of the first buyer; its money is [`WALLET_BALANCE`].
const WALLET: Address = Address::repeat_byte(0xa1);
const WALLET_BALANCE: u64 = 1_000_000;
/// A wallet that approves of everything: `return 0x1626ba7e` (ERC-1271).
const GULLIBLE: Address = Address::repeat_byte(0xa3);
/// Which buyer the token has put on its black list, and which one delegates to a wallet's code.
const BLACKLISTED: usize = 6;
const DELEGATED: usize = 7;
/// How long the questions may be under way.
const SLACK: Duration = Duration::from_secs(60);

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payer {
    Buyer(usize),
    Pauper,
    Wallet,
    Gullible,
}

/// What becomes of the good signature.
#[derive(Debug, Clone)]
enum Spoil {
    Nothing,
    /// One bit is turned.
    Bit(usize),
    /// The other signature of the same signer.
    Twin,
    V(u8),
    /// EIP-2098.
    Compact,
    Length(usize),
    Noise(Vec<u8>),
    /// Another buyer's.
    Foreign,
    /// The form of wallets with several keys.
    Long,
    /// ERC-6492, of a factory that is not called.
    Wrapped,
}

/// A time, by the newest block's.
#[derive(Debug, Clone, Copy)]
enum Time {
    Beginning,
    FromBlock(i64),
    FromNow(i64),
    End,
}

#[derive(Debug, Clone)]
struct Case {
    payer: Payer,
    spoil: Spoil,
    amount: U256,
    payee: Address,
    valid_after: Time,
    valid_before: Time,
    is_used: bool,
    /// What the merchant asks instead of what was authorized.
    asks_less: bool,
    pays_elsewhere: bool,
    is_of_other_domain: bool,
}

fn cases(usdc: Address, payee: Address) -> impl Strategy<Value = Case> {
    let payer = prop_oneof![
        6 => (0..8_usize).prop_map(Payer::Buyer),
        1 => Just(Payer::Pauper),
        3 => Just(Payer::Wallet),
        1 => Just(Payer::Gullible),
    ];
    let spoil = prop_oneof![
        14 => Just(Spoil::Nothing),
        4 => (0..65 * 8_usize).prop_map(Spoil::Bit),
        2 => Just(Spoil::Twin),
        3 => prop_oneof![select(vec![0, 1, 27, 28]), any::<u8>()].prop_map(Spoil::V),
        1 => Just(Spoil::Compact),
        1 => (0..70_usize).prop_map(Spoil::Length),
        1 => vec(any::<u8>(), 0..300).prop_map(Spoil::Noise),
        1 => Just(Spoil::Foreign),
        2 => Just(Spoil::Long),
        1 => Just(Spoil::Wrapped),
    ];
    let amounts = [
        U256::ZERO,
        U256::from(1),
        U256::from(WALLET_BALANCE),
        U256::from(WALLET_BALANCE + 1),
        U256::MAX,
    ];
    let amount = prop_oneof![
        6 => Just(U256::from(AMOUNT)),
        3 => select(amounts.to_vec()),
        1 => any::<[u8; 32]>().prop_map(U256::from_be_bytes),
    ];
    let payees = prop_oneof![
        9 => Just(payee),
        1 => select(vec![Address::ZERO, usdc, WALLET, NOWHERE]),
    ];
    let valid_after = prop_oneof![
        12 => Just(Time::Beginning),
        3 => (-2..3_i64).prop_map(Time::FromBlock),
        1 => Just(Time::FromNow(1_000)),
        1 => Just(Time::End),
    ];
    let valid_before = prop_oneof![
        12 => Just(Time::FromNow(1_000)),
        3 => Just(Time::End),
        2 => (-2..3_i64).prop_map(Time::FromBlock),
        1 => Just(Time::FromNow(3)),
        1 => Just(Time::Beginning),
    ];
    let rarely = || prop_oneof![14 => Just(false), 1 => Just(true)];
    (
        (payer, spoil, amount, payees),
        (valid_after, valid_before),
        (rarely(), rarely(), rarely(), rarely()),
    )
        .prop_map(|((payer, spoil, amount, payee), (valid_after, valid_before), rare)| {
            let (is_used, asks_less, pays_elsewhere, is_of_other_domain) = rare;
            Case {
                payer,
                spoil,
                amount,
                payee,
                valid_after,
                valid_before,
                is_used,
                asks_less,
                pays_elsewhere,
                is_of_other_domain,
            }
        })
}

/// What the questions are asked of.
struct Stage {
    world: World,
    block_time: u64,
    /// A nonce that was used, by payer.
    used: BTreeMap<Address, AuthorizationNonce>,
}

/// A payment, and how the token is asked about it.
struct Asked {
    body: Value,
    authorization: Authorization,
    calldata: Bytes,
}

impl Stage {
    fn account(&self, payer: Payer) -> Account {
        let chain = &self.world.services.chain;
        match payer {
            Payer::Buyer(n) => chain.payers[n].clone(),
            Payer::Pauper => chain.pauper.clone(),
            Payer::Wallet => Account { address: WALLET, ..chain.payers[0].clone() },
            Payer::Gullible => Account { address: GULLIBLE, ..chain.payers[0].clone() },
        }
    }

    fn time(&self, time: Time) -> U256 {
        let at = |from: u64, by: i64| U256::from(from.saturating_add_signed(by));
        match time {
            Time::Beginning => U256::ZERO,
            Time::FromBlock(by) => at(self.block_time, by),
            Time::FromNow(by) => at(now().seconds(), by),
            Time::End => U256::MAX,
        }
    }

    fn asked(&self, case: &Case) -> Asked {
        let mut recipe = Recipe::of(&self.world, 0);
        recipe.account = self.account(case.payer);
        recipe.authorization = Authorization {
            payer: recipe.account.address,
            payee: case.payee,
            amount: Amount::from_base_units(case.amount),
            valid_after: self.time(case.valid_after),
            valid_before: self.time(case.valid_before),
            nonce: match self.used.get(&recipe.account.address) {
                Some(used) if case.is_used => *used,
                _ => AuthorizationNonce::from_bytes(B256::random()),
            },
        };
        if case.is_of_other_domain {
            recipe.market.token_name = "USDC".to_owned();
        }
        if case.asks_less {
            recipe.edit("/paymentRequirements/amount", "1");
        }
        if case.pays_elsewhere {
            recipe.edit("/paymentRequirements/payTo", Address::repeat_byte(0x99).to_string());
        }
        let body = recipe.body(Version::V2);
        let spoilt = self.spoilt(case, &signature(&body));
        // What the token is shown: out of its wrapper, and of the payer's own key with 27 or 28, be the
        // account delegated or not.
        let shown = match case.spoil {
            Spoil::Wrapped => signature(&body),
            _ => spoilt.clone(),
        };
        let own = EcdsaSignature::parse(&shown);
        let calldata =
            match own.filter(|own| own.signer(digest(&recipe)) == Some(recipe.account.address)) {
                Some(own) if self.has_code(case.payer) => {
                    contract_transfer_calldata(&recipe.authorization, &own.to_bytes().into())
                }
                Some(own) => transfer_calldata(&recipe.authorization, &own),
                None => contract_transfer_calldata(&recipe.authorization, &shown.into()),
            };
        let body = with_signature(&body, &spoilt);
        Asked { body, authorization: recipe.authorization, calldata }
    }

    fn has_code(&self, payer: Payer) -> bool {
        match payer {
            Payer::Buyer(n) => n == DELEGATED,
            Payer::Pauper => false,
            Payer::Wallet | Payer::Gullible => true,
        }
    }

    fn spoilt(&self, case: &Case, good: &[u8]) -> Vec<u8> {
        match &case.spoil {
            Spoil::Nothing => good.to_vec(),
            Spoil::Bit(bit) => {
                let mut bytes = good.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            }
            Spoil::Twin => high_s_twin(good),
            Spoil::V(v) => [&good[..64], &[*v]].concat(),
            Spoil::Compact => {
                let mut bytes = good[..64].to_vec();
                bytes[32] |= if good[64] == 28 { 0x80 } else { 0 };
                bytes
            }
            Spoil::Length(n) => good.iter().copied().chain([0; 5]).take(*n).collect(),
            Spoil::Noise(bytes) => bytes.clone(),
            Spoil::Foreign => {
                let mut recipe = Recipe::of(&self.world, 3);
                recipe.authorization.payer = self.account(case.payer).address;
                signature(&recipe.body(Version::V2))
            }
            Spoil::Long => of_key_zero(good),
            Spoil::Wrapped => in_wrapper(NOWHERE, &[1], good),
        }
    }

    /// Whether the token would move the money, at the newest block.
    async fn token_takes(&self, asked: &Asked) -> bool {
        let usdc = self.world.services.chain.usdc;
        let call = json!({ "to": usdc, "data": hex::encode_prefixed(&asked.calldata) });
        match self.world.node.try_call("eth_call", json!([call, "latest"])).await {
            Ok(_) => true,
            Err(error) => {
                assert!(error["message"].as_str().unwrap().contains("revert"), "{error}");
                false
            }
        }
    }

    /// Whether a payment that the token would take is refused on purpose.
    fn is_meant(&self, case: &Case, asked: &Asked, reason: &str) -> bool {
        let authorization = &asked.authorization;
        let by_now = |margin: Duration| U256::from(now().seconds() + margin.as_secs());
        match reason {
            // It could not be mined in time.
            "invalid_exact_evm_payload_authorization_valid_before" => {
                authorization.valid_before < by_now(MINING_MARGIN + SLACK)
            }
            // By the clock, where the newest block is ahead of it.
            "invalid_exact_evm_payload_authorization_valid_after" => {
                authorization.valid_after > U256::from(now().seconds() - SLACK.as_secs())
            }
            // The token does not know what was asked.
            "invalid_exact_evm_recipient_mismatch" => case.pays_elsewhere,
            "invalid_exact_evm_payload_authorization_value_mismatch" => case.asks_less,
            // The wrapper says that the wallet is to be deployed, although a key can sign for it.
            "eip6492_factory_not_allowed" => {
                matches!(case.spoil, Spoil::Wrapped) && !self.has_code(case.payer)
            }
            _ => false,
        }
    }
}

/// A world with payers of every kind, and one used nonce of each that can pay.
async fn stage() -> (Stage, Service) {
    let world = World::stepped().await;
    let (usdc, stranger) = (world.services.chain.usdc, world.services.chain.stranger.address);
    world.place_wallet(WALLET, 0).await;
    world.node.set_code(GULLIBLE, &"0x631626ba7e60e01b5f5260205ff3".parse().unwrap()).await;
    world.give(GULLIBLE, WALLET_BALANCE).await;
    let delegate = Address::repeat_byte(0xde);
    world.node.set_code(delegate, &crate::support::code_of("SmartWallet")).await;
    world.delegate(world.services.chain.payers[DELEGATED].address, Some(delegate)).await;
    let mut stage = Stage { world, block_time: 0, used: BTreeMap::new() };
    stage.world.node.call("anvil_impersonateAccount", json!([stranger])).await;
    for payer in [0, 1, 2, 3].map(Payer::Buyer).into_iter().chain([Payer::Wallet]) {
        let case = Case {
            payer,
            spoil: Spoil::Nothing,
            amount: U256::from(1),
            payee: NOWHERE,
            valid_after: Time::Beginning,
            valid_before: Time::End,
            is_used: false,
            asks_less: false,
            pays_elsewhere: false,
            is_of_other_domain: false,
        };
        let asked = stage.asked(&case);
        let data = hex::encode_prefixed(&asked.calldata);
        let sent = json!([{ "from": stranger, "to": usdc, "data": data, "gas": "0x493e0" }]);
        stage.world.node.call("eth_sendTransaction", sent).await;
        stage.used.insert(asked.authorization.payer, asked.authorization.nonce);
    }
    stage.world.give(WALLET, WALLET_BALANCE + 1).await;
    stage.world.node.mine(1).await;
    stage.world.blacklist(stage.world.services.chain.payers[BLACKLISTED].address).await;
    let service = stage.world.service().await;
    stage.world.node.mine(1).await;
    let block = stage.world.node.call("eth_getBlockByNumber", json!(["latest", false])).await;
    let time = block["timestamp"].as_str().unwrap().trim_start_matches("0x");
    stage.block_time = u64::from_str_radix(time, 16).unwrap();
    (stage, service)
}

fn digest(recipe: &Recipe) -> B256 {
    let market = &recipe.market;
    let (name, version) = (market.token_name.clone(), market.token_version.clone());
    let domain = TokenDomain { name, version };
    authorization_digest(market.chain_id, market.asset, &domain, &recipe.authorization)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verdict_is_that_of_the_token() {
    let n_cases = number(CASES).map_or(N_CASES, |n| usize::try_from(n).unwrap());
    let seed = number(SEED).unwrap_or_else(|| {
        B256::random().0[0..8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    });
    println!("{SEED}={seed} {CASES}={n_cases}");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &U256::from(seed).to_be_bytes::<32>());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (stage, service) = stage().await;
    let chain = &stage.world.services.chain;
    let strategy = cases(chain.usdc, chain.payee.address);
    let height = stage.world.node.block_number().await;
    let (mut n_accepted, mut reasons) = (0, BTreeMap::<String, usize>::new());
    let all: Vec<Case> =
        (0..n_cases).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    for together in all.chunks(N_TOGETHER) {
        let asked: Vec<Asked> = together.iter().map(|case| stage.asked(case)).collect();
        let verdicts = join_all(asked.iter().map(|asked| service.verify(&asked.body))).await;
        let taken = join_all(asked.iter().map(|asked| stage.token_takes(asked))).await;
        for (((case, asked), verdict), taken) in
            together.iter().zip(&asked).zip(verdicts).zip(taken)
        {
            let story = format!("{SEED}={seed}: {case:?}\n{}\n{verdict}", asked.body);
            if verdict["isValid"] == true {
                assert!(taken, "accepted, and the token refuses\n{story}");
                n_accepted += 1;
                continue;
            }
            let reason = verdict["invalidReason"].as_str().unwrap();
            *reasons.entry(reason.to_owned()).or_default() += 1;
            let is_meant = stage.is_meant(case, asked, reason);
            assert!(!taken || is_meant, "refused, and the token accepts\n{story}");
        }
    }
    assert_eq!(stage.world.node.block_number().await, height, "a block was built meanwhile");
    println!("{n_accepted} accepted, and refused: {reasons:#?}");
    if n_cases >= N_CASES {
        assert!(n_accepted > n_cases / 20 && reasons.len() >= 8, "{n_accepted} {reasons:?}");
    }
    assert_eq!(stage.world.count("select count(*) from settlement").await, 0);
    service.stop().await;
    stage.world.stop().await;
}
