-- Payers whose code judges the signature: contract wallets, delegated accounts, and wallets that are
-- deployed along with the payment.

alter table settlement
    drop constraint settlement_signature_check,
    -- As it was sent, ERC-6492 wrapper included; a payer's own key's as r, s and 27 or 28.
    add constraint settlement_signature_check check (length(signature) <= 8192),
    -- key: the token recovers it. contract: the payer's code is asked (ERC-1271). counterfactual: the
    -- same, after its factory was called (ERC-6492).
    add column payer_kind text not null default 'key'
        check (payer_kind in ('key', 'contract', 'counterfactual')),
    -- The gas that the settlement call used when it was verified, the factory's call included.
    add column simulated_gas bigint not null default 0 check (simulated_gas >= 0);
