//! Many payments in one transaction: through our settler, or through Multicall3 where it is not
//! deployed.

use std::sync::LazyLock;

use alloy::{
    primitives::{Address, B256, Bytes, U256, address},
    sol,
    sol_types::SolCall,
};

use super::{Chain, ChainError};

sol!(BatchSettler, "contracts/artifacts/BatchSettler.json");

sol! {
    /// Multicall3 at its canonical address (github.com/mds1/multicall3).
    interface Multicall3 {
        struct Call3 { address target; bool allowFailure; bytes callData; }
        struct Result { bool success; bytes returnData; }
        function aggregate3(Call3[] calls) payable returns (Result[] returnData);
    }
}

/// Where Multicall3 is on every chain that has it.
pub(super) const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
/// The deterministic deployment proxy: it creates what its calldata holds after a salt, with CREATE2
/// (github.com/Arachnid/deterministic-deployment-proxy).
const DEPLOYER: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");
/// Ours. Whoever deploys the same code gets the same address.
const SALT: B256 = B256::ZERO;

/// Where the settler is once somebody deployed it.
static SETTLER: LazyLock<Address> =
    LazyLock::new(|| DEPLOYER.create2_from_code(SALT, &BatchSettler::BYTECODE));

/// A call that is part of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchCall {
    /// The contract.
    pub target: Address,
    /// What it is asked.
    pub data: Bytes,
    /// How much gas it may use. Multicall3 knows no such limit.
    pub gas_cap: u64,
}

impl BatchCall {
    /// How long the call is in a batch's calldata: its words, its data, and the padding.
    pub fn n_bytes(&self) -> usize {
        const N_HEAD_BYTES: usize = 6 * 32;
        N_HEAD_BYTES.saturating_add(self.data.len())
    }
}

/// What carries a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// `contracts/src/BatchSettler.sol`: bounds the gas of each call, copies no return data.
    Settler,
    /// Multicall3: anyone's, and only for calls that are known to be harmless.
    Multicall3,
}

impl Carrier {
    /// The contract and the calldata that make `calls` in their order, each whether or not the
    /// others succeed.
    pub fn call(self, calls: &[BatchCall]) -> (Address, Bytes) {
        match self {
            Self::Settler => {
                let calls = calls.iter().map(|call| BatchSettler::Call {
                    target: call.target,
                    gasCap: U256::from(call.gas_cap),
                    data: call.data.clone(),
                });
                let batch = BatchSettler::settleCall { calls: calls.collect() };
                (*SETTLER, batch.abi_encode().into())
            }
            Self::Multicall3 => (MULTICALL3, aggregate3(calls)),
        }
    }
}

/// The contract and the calldata that deploy the settler.
pub fn settler_deployment() -> (Address, Bytes) {
    (DEPLOYER, [SALT.as_slice(), &BatchSettler::BYTECODE].concat().into())
}

fn aggregate3(calls: &[BatchCall]) -> Bytes {
    let calls = calls.iter().map(|call| (call.target, call.data.clone()));
    together(calls.collect())
}

/// The calldata by which Multicall3 makes calls in their order, whether or not others succeed.
pub(super) fn together(calls: Vec<(Address, Bytes)>) -> Bytes {
    let calls = calls.into_iter().map(|(target, data)| Multicall3::Call3 {
        target,
        allowFailure: true,
        callData: data,
    });
    Multicall3::aggregate3Call { calls: calls.collect() }.abi_encode().into()
}

/// What the calls of [`together`] returned; `None` of one that failed.
pub(super) fn each_returned(answer: &[u8]) -> Option<Vec<Option<Bytes>>> {
    let results = Multicall3::aggregate3Call::abi_decode_returns(answer).ok()?;
    Some(results.into_iter().map(|result| result.success.then_some(result.returnData)).collect())
}

impl Chain {
    /// Whether the settler is deployed.
    pub async fn has_settler(&self) -> Result<bool, ChainError> {
        Ok(!self.code(*SETTLER).await?.is_empty())
    }

    /// Whether the settler can be deployed: the deployer is a contract of the chain.
    pub async fn has_deployer(&self) -> Result<bool, ChainError> {
        Ok(!self.code(DEPLOYER).await?.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{BatchCall, BatchSettler, Carrier, SETTLER};
    use alloy::primitives::{Address, address};

    #[test]
    fn the_settler_is_where_its_code_says() {
        // The same address as contracts/README.md; it changes with every change of the contract.
        assert_eq!(*SETTLER, address!("dDb810Be1B0aEE8fA25f1e605e195A4E041F7258"));
        assert!(!BatchSettler::BYTECODE.is_empty());
    }

    #[test]
    fn a_batch_is_no_longer_than_its_calls_say() {
        let call = BatchCall { target: Address::ZERO, data: vec![1; 292].into(), gas_cap: 1 };
        for carrier in [Carrier::Settler, Carrier::Multicall3] {
            let (_, data) = carrier.call(&vec![call.clone(); 50]);
            assert!(data.len() <= 50 * call.n_bytes() + 1_024, "{}", data.len());
        }
    }
}
