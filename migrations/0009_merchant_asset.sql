-- What a merchant may be paid in. A merchant without a row may be paid in any asset.
create table merchant_asset
(
    merchant_id uuid        not null references merchant,
    chain_id    text        not null check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    asset       bytea       not null check (length(asset) = 20),
    created_at  timestamptz not null default now(),

    constraint merchant_asset_pkey primary key (merchant_id, chain_id, asset)
);
