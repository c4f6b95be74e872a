-- Where a merchant may be paid. A merchant without a row may name any address; one that onboarded by
-- itself always has one, because its last one cannot be removed.
create table merchant_payee
(
    merchant_id uuid        not null references merchant,
    chain_id    text        not null check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    address     bytea       not null check (length(address) = 20),
    -- How we know that the address is the merchant's: by a Sign-In with Ethereum message (EIP-4361), or
    -- because the operator says so.
    proof       text        not null check (proof in ('sign_in', 'operator')),
    -- What was signed and by what; a person can check it again.
    message     text,
    signature   bytea check (length(signature) <= 8192),
    created_at  timestamptz not null default now(),

    constraint merchant_payee_pkey primary key (merchant_id, chain_id, address),
    constraint merchant_payee_evidence_check check
        ((proof = 'sign_in') = (message is not null and signature is not null))
);

-- Whose address it is, for those who sign in again.
alter table merchant
    -- The address that the merchant onboarded with by itself, on the chain that its message named.
    add column owner_chain_id text check (owner_chain_id ~ '^eip155:[1-9][0-9]*$'),
    add column owner          bytea check (length(owner) = 20),
    add constraint merchant_owner_key unique (owner_chain_id, owner),
    add constraint merchant_owner_pair_check check ((owner is null) = (owner_chain_id is null));

-- Messages that were used: each serves once. Forgotten when they are too old to be used anyway.
create table sign_in
(
    nonce   text primary key check (length(nonce) between 8 and 100),
    used_at timestamptz not null default now()
);

create index sign_in_used_at_idx on sign_in (used_at);
