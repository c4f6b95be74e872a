-- A hot wallet on one chain. Its key is never here.
create table wallet
(
    wallet_id          integer generated always as identity primary key,
    chain_id           text        not null check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    address            bytea       not null check (length(address) = 20),
    -- The account nonce of the next transaction. Moves only in the database transaction that
    -- stores the signed bytes which use it, so the nonces below it are dense.
    next_account_nonce bigint      not null check (next_account_nonce >= 0),
    created_at         timestamptz not null default now(),

    constraint wallet_address_key unique (chain_id, address)
);

-- One account nonce of one wallet, and what was signed for it.
create table transaction
(
    transaction_id      bigint generated always as identity primary key,
    wallet_id           integer     not null references wallet,
    chain_id            text        not null,
    account_nonce       bigint      not null check (account_nonce >= 0),
    status              text        not null default 'open' check (status in ('open', 'mined', 'finalized')),
    mined_hash          bytea check (length(mined_hash) = 32),
    block_hash          bytea check (length(block_hash) = 32),
    block_number        bigint,
    created_at          timestamptz not null default now(),

    constraint transaction_account_nonce_key unique (wallet_id, account_nonce),
    constraint transaction_mined_check check
        ((status = 'open') = (mined_hash is null and block_hash is null and block_number is null))
);

create index transaction_open_idx on transaction (wallet_id, account_nonce) where status = 'open';
create index transaction_mined_idx on transaction (chain_id, block_number) where status = 'mined';

-- One signed envelope of a transaction. Stored before it is sent: after a crash we must find what
-- the network may already have.
create table attempt
(
    transaction_hash            bytea primary key check (length(transaction_hash) = 32),
    transaction_id              bigint         not null references transaction,
    sequence                    smallint       not null check (sequence >= 0),
    raw                         bytea          not null,
    fee_wei_max                 numeric(39, 0) not null check (fee_wei_max >= 0),
    priority_fee_wei_max        numeric(39, 0) not null check (priority_fee_wei_max >= 0),
    gas_limit                   bigint         not null check (gas_limit > 0),
    created_at                  timestamptz    not null default now(),
    -- Notes for people; nothing depends on them.
    sent_at                     timestamptz,
    sent_answer                 text,

    constraint attempt_sequence_key unique (transaction_id, sequence)
);

-- Which settlements a transaction carries, in order. Kept for ever.
create table transaction_item
(
    transaction_id bigint   not null references transaction,
    item_index     smallint not null check (item_index >= 0),
    settlement_id  uuid     not null references settlement,

    primary key (transaction_id, item_index)
);

create index transaction_item_settlement_idx on transaction_item (settlement_id, transaction_id);

-- How far the block follower has read each chain.
create table chain_head
(
    chain_id         text primary key check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    number           bigint not null check (number >= 0),
    hash             bytea  not null check (length(hash) = 32),
    safe_number      bigint,
    finalized_number bigint
);

-- The blocks above the finalized one, to find where a reorg began.
create table chain_block
(
    chain_id    text   not null,
    number      bigint not null,
    hash        bytea  not null check (length(hash) = 32),
    parent_hash bytea  not null check (length(parent_hash) = 32),

    primary key (chain_id, number)
);

-- Canonical logs that prove a payment. A reorg marks them orphaned; they are never deleted.
create table evidence
(
    chain_id         text        not null,
    block_hash       bytea       not null check (length(block_hash) = 32),
    log_index        bigint      not null check (log_index >= 0),
    block_number     bigint      not null,
    transaction_hash bytea       not null check (length(transaction_hash) = 32),
    settlement_id    uuid        not null references settlement,
    -- Whether one of our own attempts emitted them; anyone may submit an EIP-3009 authorization.
    by_us            boolean     not null,
    orphaned_at      timestamptz,
    created_at       timestamptz not null default now(),

    primary key (chain_id, block_hash, log_index)
);

create unique index evidence_standing_key on evidence (settlement_id) where orphaned_at is null;
