-- Who may pay, be paid, in what, and by whose factories: lists of the whole service and of merchants.
-- See src/lists and docs/lists.md.
create table list_entry
(
    entry_id    bigint generated always as identity primary key,
    -- Null: for the whole service.
    merchant_id uuid references merchant,
    kind        text        not null check (kind in ('payer', 'payee', 'asset', 'factory')),
    verb        text        not null check (verb in ('allow', 'deny')),
    -- Null: on any chain.
    chain_id    text check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    address     bytea       not null check (length(address) = 20),
    note        text        not null check (length(note) <= 200),
    created_at  timestamptz not null default now(),

    -- Led by the address: claims ask about the addresses of one payment.
    constraint list_entry_key unique nulls not distinct (address, kind, verb, merchant_id, chain_id)
);

create index list_entry_merchant_idx on list_entry (merchant_id, entry_id);
-- Whether there is a list of allowed ones at all.
create index list_entry_allow_idx on list_entry (merchant_id, kind, chain_id) where verb = 'allow';

-- How often the lists of the service or of a merchant were changed, and how long they are. A row is made
-- with the first change.
create table list_version
(
    merchant_id uuid references merchant,
    version     bigint  not null check (version > 0),
    n_entries   integer not null check (n_entries >= 0),

    constraint list_version_key unique nulls not distinct (merchant_id)
);

-- Payments that a list, the sanctions file or a chain's oracle forbade. Equal ones are counted.
create table list_refusal
(
    refusal_id  bigint generated always as identity primary key,
    merchant_id uuid           not null references merchant,
    api_key_id  uuid           not null references api_key,
    stage       text           not null check (stage in ('verify', 'claim')),
    chain_id    text           not null,
    asset       bytea          not null check (length(asset) = 20),
    payer       bytea          not null check (length(payer) = 20),
    payee       bytea          not null check (length(payee) = 20),
    amount      numeric(78, 0) not null check (amount >= 0),
    nonce       bytea          not null check (length(nonce) = 32),
    -- Whom it forbids.
    kind        text           not null check (kind in ('payer', 'payee', 'asset', 'factory')),
    address     bytea          not null check (length(address) = 20),
    -- Such as `service/payer/deny`, `sanctions-file`, `oracle:0x…`.
    list        text           not null check (length(list) between 1 and 100),
    version     text           not null check (length(version) between 1 and 200),
    first_at    timestamptz    not null default now(),
    last_at     timestamptz    not null default now(),
    n           bigint         not null check (n > 0),

    constraint list_refusal_key unique
        (payer, nonce, chain_id, asset, payee, amount, api_key_id, stage, list, version)
);

create index list_refusal_merchant_idx on list_refusal (merchant_id, refusal_id);
