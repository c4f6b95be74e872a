//! What one block means for our settlements. Pure: facts in, decisions out.

use std::collections::{HashMap, HashSet};

use alloy::primitives::{Address, B256, U256};

use crate::{
    chain::{Fate, Receipt, TokenEvent, fate},
    domain::{AuthorizationNonce, Refusal, SettlementId, SettlementStatus},
    faults::{Defect, has_defect},
    ledger::{Proof, Settlement},
};

use crate::engine::store::MinedTransaction;

use super::verdict::consumed;

/// What was read of one block.
#[derive(Debug, Default)]
pub(in crate::engine) struct BlockFacts {
    /// Receipts of our transactions and of those that used an authorization we know.
    pub(in crate::engine) receipts: HashMap<B256, Receipt>,
    /// Our open transactions that stand in the block.
    pub(in crate::engine) ours: Vec<MinedTransaction>,
    /// Every settlement that the block may concern: carried, touched by an event, or expired.
    pub(in crate::engine) settlements: Vec<Settlement>,
    /// Which of the settlements had expired when the block was built.
    pub(in crate::engine) expired: HashSet<SettlementId>,
}

/// What the block decides, and what it leaves open.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Decisions {
    /// Proven paid.
    pub(in crate::engine) paid: Vec<Proof>,
    /// Proven unpayable.
    pub(in crate::engine) refused: Vec<(SettlementId, Refusal)>,
    /// To be examined at this block: their transaction left no evidence, or they expired.
    pub(in crate::engine) unclear: Vec<SettlementId>,
}

/// Decides by logs that are there. A revert or a missing log decides nothing: log indexes lag, and
/// nodes behind a balancer differ.
pub(in crate::engine) fn decide(facts: &BlockFacts) -> Decisions {
    let our_hashes: HashSet<B256> = facts.ours.iter().map(|mined| mined.hash).collect();
    let carried: HashSet<SettlementId> =
        facts.ours.iter().flat_map(|mined| mined.settlement_ids.iter().copied()).collect();
    let speaking = speaking(facts);
    let mut decisions = Decisions::default();
    for settlement in &facts.settlements {
        let settlement_id = settlement.settlement_id;
        if !settlement.status.may_become(SettlementStatus::Included) {
            continue;
        }
        let is_open = settlement.status != SettlementStatus::Failed;
        match fate_in(&speaking, settlement) {
            Fate::Paid(evidence) => {
                let by_us = our_hashes.contains(&evidence.transaction_hash);
                decisions.paid.push(Proof { settlement_id, evidence, by_us });
            }
            Fate::Consumed if is_open && has_defect(Defect::UsedIsPaid) => {
                decisions.unclear.push(settlement_id);
            }
            Fate::Consumed if is_open => decisions.refused.push((settlement_id, consumed())),
            Fate::Unknown
                if is_open
                    && (carried.contains(&settlement_id)
                        || facts.expired.contains(&settlement_id)) =>
            {
                decisions.unclear.push(settlement_id);
            }
            Fate::Consumed | Fate::Unknown => (),
        }
    }
    decisions
}

/// Which receipts speak of which authorization.
type Speaking<'a> = HashMap<(Address, Address, AuthorizationNonce), Vec<&'a Receipt>>;

fn speaking(facts: &BlockFacts) -> Speaking<'_> {
    let mut speaking: Speaking<'_> = HashMap::new();
    for receipt in facts.receipts.values() {
        for event in receipt.logs.iter().filter_map(TokenEvent::read) {
            speaking.entry((event.asset, event.payer, event.nonce)).or_default().push(receipt);
        }
    }
    speaking
}

/// What the block's receipts say of a settlement, payment before anything else.
fn fate_in(speaking: &Speaking<'_>, settlement: &Settlement) -> Fate {
    let authorization = &settlement.authorization;
    let key = (settlement.asset, authorization.payer, authorization.nonce);
    let mut found = Fate::Unknown;
    for receipt in speaking.get(&key).into_iter().flatten() {
        match fate(receipt, settlement.asset, authorization) {
            Fate::Paid(evidence) => return Fate::Paid(evidence),
            Fate::Consumed => found = Fate::Consumed,
            Fate::Unknown => (),
        }
    }
    found
}

/// Splits the cost of a transaction over what it carried: equal parts, and what division leaves
/// over goes to the first. The parts always add up to the whole.
pub(in crate::engine) fn gas_shares(fee_wei: U256, n_settlements: usize) -> Vec<U256> {
    let n = U256::from(n_settlements);
    let (Some(part), Some(rest)) = (fee_wei.checked_div(n), fee_wei.checked_rem(n)) else {
        return Vec::new();
    };
    let mut shares = vec![part; n_settlements];
    if let Some(first) = shares.first_mut() {
        *first = part.saturating_add(rest);
    }
    shares
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;

    use super::gas_shares;

    #[test]
    fn gas_shares_add_up_to_the_fee() {
        for (fee, n) in [(0_u64, 1_usize), (1, 1), (10, 3), (2, 3), (85_704, 64)] {
            let shares = gas_shares(U256::from(fee), n);
            assert_eq!(shares.len(), n);
            assert_eq!(shares.into_iter().sum::<U256>(), U256::from(fee), "{fee} over {n}");
        }
        assert!(gas_shares(U256::from(5), 0).is_empty());
    }
}
