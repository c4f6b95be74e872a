//! A settlement as calls: those that pay it, and what the lens is asked about it.

use crate::{
    chain::{BatchCall, Question, contract_transfer_calldata, transfer_calldata},
    domain::PayerKind,
    ledger::Settlement,
    verify::{Consent, EcdsaSignature, Unwrapped},
};

use super::policy::gas::{ITEM_GAS_CAP, code_gas_cap};

/// The calls that pay `settlement`, in their order: the token's, and before it the factory's where the
/// payer's wallet was not there when it was verified. If somebody deployed it meanwhile, the factory's
/// call does nothing, or fails alone.
pub(super) fn calls_of(settlement: &Settlement) -> Vec<BatchCall> {
    let (target, authorization) = (settlement.asset, &settlement.authorization);
    match consent(settlement) {
        Consent::Key(signature) => {
            let data = transfer_calldata(authorization, &signature);
            vec![BatchCall { target, data, gas_cap: ITEM_GAS_CAP }]
        }
        Consent::Contract(Unwrapped { signature, deployment }) => {
            let gas_cap = code_gas_cap(settlement.simulated_gas);
            let data = contract_transfer_calldata(authorization, &signature);
            let deployment = deployment.map(|call| BatchCall {
                target: call.factory,
                data: call.calldata,
                gas_cap,
            });
            deployment.into_iter().chain([BatchCall { target, data, gas_cap }]).collect()
        }
    }
}

/// What the lens is asked about `settlement`.
pub(super) fn question(settlement: &Settlement) -> Question {
    let (asset, authorization) = (settlement.asset, settlement.authorization);
    let consent = match consent(settlement) {
        // The account of a key that is delegated now and may be plain at the next look.
        Consent::Contract(Unwrapped { signature, deployment: None }) => {
            EcdsaSignature::parse(&signature)
                .filter(|by_key| by_key.signer(settlement.digest) == Some(authorization.payer))
                .map_or(Consent::Contract(Unwrapped { signature, deployment: None }), Consent::Key)
        }
        consent => consent,
    };
    Question::new(asset, authorization, settlement.digest, consent)
}

fn consent(settlement: &Settlement) -> Consent {
    let mut unwrapped = Unwrapped::of(&settlement.signature);
    match settlement.payer_kind {
        PayerKind::Key => {
            if let Some(signature) = EcdsaSignature::parse(&settlement.signature) {
                return Consent::Key(signature);
            }
        }
        PayerKind::Contract => unwrapped.deployment = None,
        PayerKind::Counterfactual => (),
    }
    Consent::Contract(unwrapped)
}
