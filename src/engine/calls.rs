//! A settlement as calls: those that pay it, and what the lens is asked about it.

use crate::{
    chain::{BatchCall, Question, payment_calls},
    ledger::Settlement,
    verify::{Consent, EcdsaSignature, Unwrapped},
};

use super::policy::gas::{ITEM_GAS_CAP, code_gas_cap};

/// The calls that pay `settlement`, in their order: the token's, and before it the factory's where the
/// payer's wallet was not there when it was verified. If somebody deployed it meanwhile, the factory's
/// call does nothing, or fails alone.
pub(super) fn calls_of(settlement: &Settlement) -> Vec<BatchCall> {
    let consent = consent(settlement);
    let gas_cap = match consent {
        Consent::Key(_) => ITEM_GAS_CAP,
        Consent::Contract(_) => code_gas_cap(settlement.simulated_gas),
    };
    let calls = payment_calls(settlement.asset, &settlement.authorization, &consent).into_iter();
    calls.map(|(target, data)| BatchCall { target, data, gas_cap }).collect()
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
    Consent::shown(settlement.payer_kind, &settlement.signature)
}
