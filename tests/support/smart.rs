//! Payers with code: contract wallets, delegated accounts, and wallets that a factory is still to
//! deploy (contracts/src/local says what each of the contracts does).

use std::path::PathBuf;

use alloy::{
    hex,
    primitives::{Address, B256, Bytes, U256, keccak256},
    sol,
    sol_types::{SolCall as _, SolValue as _},
};
use quittance::domain::{Amount, Authorization, AuthorizationNonce};
use serde_json::{Value, json};

use super::{World, now};

sol! {
    function createAccount(address owner, uint256 salt) returns (address);
    function getAddress(address owner, uint256 salt) returns (address);
}

/// Where the signature of a payment is.
const SIGNATURE: &str = "/paymentPayload/payload/signature";
/// The slot in which USDC keeps balances (`balanceAndBlacklistStates` of `FiatTokenV2_2.sol`).
const BALANCES_SLOT: U256 = U256::from_limbs([9, 0, 0, 0]);
/// How long the payments are valid.
const VALID_FOR_SECONDS: u64 = 300;

/// The code that a contract of contracts/src has once it is deployed.
pub fn code_of(contract: &str) -> Bytes {
    let artifacts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("contracts/artifacts");
    let artifact = std::fs::read_to_string(artifacts.join(format!("{contract}.json"))).unwrap();
    let artifact: Value = serde_json::from_str(&artifact).unwrap();
    artifact["deployedBytecode"].as_str().unwrap().parse().unwrap()
}

/// The signature of a payment.
pub fn signature_of(payment: &Value) -> Bytes {
    payment.pointer(SIGNATURE).unwrap().as_str().unwrap().parse().unwrap()
}

/// The same payment with another signature.
pub fn signed_by(payment: &Value, signature: &[u8]) -> Value {
    let mut changed = payment.clone();
    *changed.pointer_mut(SIGNATURE).unwrap() = json!(hex::encode_prefixed(signature));
    changed
}

/// A signature as wallets of several keys take it: 192 bytes.
pub fn of_key_zero(signature: &[u8]) -> Vec<u8> {
    (U256::ZERO, Bytes::copy_from_slice(signature)).abi_encode_params()
}

/// A signature in the wrapper of ERC-6492.
pub fn in_wrapper(factory: Address, calldata: &[u8], signature: &[u8]) -> Vec<u8> {
    let [calldata, signature] = [calldata, signature].map(Bytes::copy_from_slice);
    let wrapped = (factory, calldata, signature).abi_encode_params();
    [wrapped, [0x64, 0x92].repeat(16)].concat()
}

/// What asks a factory for the wallet of `owner` and `salt`.
pub fn create_account(owner: Address, salt: u64) -> Vec<u8> {
    createAccountCall { owner, salt: U256::from(salt) }.abi_encode()
}

impl World {
    /// Puts a contract at `address`, with a word in its slot 0. It is there from the newest block on.
    pub async fn place(&self, address: Address, contract: &str, word: U256) {
        self.node.set_code(address, &code_of(contract)).await;
        self.set_word(address, word).await;
    }

    /// Puts a word into an account's slot 0.
    pub async fn set_word(&self, address: Address, word: U256) {
        self.set_slot(address, B256::ZERO, word).await;
    }

    /// Has the account delegate to a contract (EIP-7702), or to nobody.
    pub async fn delegate(&self, account: Address, delegate: Option<Address>) {
        let designator = |to: Address| [&[0xef, 0x01, 0x00], to.as_slice()].concat();
        let code = delegate.map(designator).unwrap_or_default();
        self.node.set_code(account, &code.into()).await;
    }

    /// Gives the account that many base units of USDC.
    pub async fn give(&self, account: Address, base_units: u64) {
        let usdc = self.services.chain.usdc;
        let slot = keccak256((account, BALANCES_SLOT).abi_encode());
        self.set_slot(usdc, slot, U256::from(base_units)).await;
        assert_eq!(self.node.token_balance(usdc, account).await, base_units);
    }

    /// Puts an account on USDC's black list, with a million base units.
    pub async fn blacklist(&self, account: Address) {
        let slot = keccak256((account, BALANCES_SLOT).abi_encode());
        // The highest bit of the balance (`FiatTokenV2_2.sol`).
        let word = (U256::from(1) << 255) | U256::from(1_000_000);
        self.set_slot(self.services.chain.usdc, slot, word).await;
    }

    async fn set_slot(&self, address: Address, slot: B256, word: U256) {
        let word = B256::from(word);
        self.node.call("anvil_setStorageAt", json!([address, slot, word])).await;
    }

    /// A wallet of the n-th buyer at `address`, with money.
    pub async fn place_wallet(&self, address: Address, n: usize) {
        self.place(address, "SmartWallet", self.owner_word(n)).await;
        self.give(address, 1_000_000).await;
    }

    /// The n-th buyer, as a wallet keeps its owner.
    pub fn owner_word(&self, n: usize) -> U256 {
        U256::from_be_bytes(self.services.chain.payers[n].address.into_word().0)
    }

    /// Where a factory deploys the wallet of the n-th buyer and `salt`.
    pub async fn address_by(&self, factory: Address, n: usize, salt: u64) -> Address {
        let owner = self.services.chain.payers[n].address;
        let question = getAddressCall { owner, salt: U256::from(salt) }.abi_encode();
        let call = json!({ "to": factory, "data": hex::encode_prefixed(question) });
        let answer = self.node.call("eth_call", json!([call, "latest"])).await;
        Address::from_word(answer.as_str().unwrap().parse().unwrap())
    }

    /// A fresh authorization of `payer`: `amount` base units to the payee.
    pub fn authorization_of(&self, payer: Address, amount: u64) -> Authorization {
        Authorization {
            payer,
            payee: self.services.chain.payee.address,
            amount: Amount::from_base_units(U256::from(amount)),
            valid_after: U256::ZERO,
            valid_before: U256::from(now().seconds() + VALID_FOR_SECONDS),
            nonce: AuthorizationNonce::from_bytes(B256::random()),
        }
    }

    /// A fresh payment of `payer` that the n-th buyer signed.
    pub fn payment_of(&self, payer: Address, n: usize, amount: u64) -> Value {
        self.buyer(n).request(&self.authorization_of(payer, amount)).unwrap()
    }

    /// The same out of a wallet that `factory` is still to deploy for the n-th buyer and `salt`.
    pub async fn counterfactual(
        &self,
        factory: Address,
        n: usize,
        salt: u64,
        amount: u64,
    ) -> Value {
        let payer = self.address_by(factory, n, salt).await;
        let payment = self.payment_of(payer, n, amount);
        let owner = self.services.chain.payers[n].address;
        let wrapped = in_wrapper(factory, &create_account(owner, salt), &signature_of(&payment));
        signed_by(&payment, &wrapped)
    }
}
