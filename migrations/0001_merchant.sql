-- Whoever is paid through us.
create table merchant
(
    merchant_id uuid primary key,
    name        text        not null check (length(name) between 1 and 200),
    created_at  timestamptz not null default now(),

    constraint merchant_name_key unique (name)
);

-- Keys are 256 random bits, shown once. Only their SHA-256 is kept: there is nothing to guess.
create table api_key
(
    api_key_id  uuid primary key,
    -- Null for an operator's key.
    merchant_id uuid references merchant,
    role        text        not null check (role in ('merchant', 'operator')),
    mode        text        not null check (mode in ('live', 'test')),
    -- The beginning of the key, so that people can tell their keys apart.
    label       text        not null check (length(label) between 1 and 40),
    key_hash    bytea       not null check (length(key_hash) = 32),
    created_at  timestamptz not null default now(),
    revoked_at  timestamptz,

    constraint api_key_hash_key unique (key_hash),
    constraint api_key_owner_check check ((role = 'merchant') = (merchant_id is not null))
);
