-- How much is taken: caps, gas budgets and floors. See src/limits/caps and docs/caps.md.

-- A cap counts from when it was made. Removing one deletes its row; the record of changes keeps it.
create table cap
(
    cap_id      uuid primary key,
    -- Caps of the operator and of the merchant hold side by side.
    set_by      text           not null check (set_by in ('operator', 'merchant')),
    -- Whose payments are capped. Null in the columns after it: each one on its own.
    subject     text           not null
        check (subject in ('merchant', 'key', 'payer', 'payer_at_merchant')),
    merchant_id uuid references merchant,
    api_key_id  uuid references api_key,
    payer       bytea check (length(payer) = 20),
    -- amount: base units of an asset. count: payments. gas: wei of the chain's coin.
    measure     text           not null check (measure in ('amount', 'count', 'gas')),
    period      text           not null check (period in ('payment', 'hour', 'day')),
    chain_id    text check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    asset       bytea check (length(asset) = 20),
    most        numeric(78, 0) not null check (most >= 0 and most < 2::numeric ^ 256),
    -- Not now(): claims that a cap waited for were made before it.
    created_at  timestamptz    not null default clock_timestamp(),
    -- Whom it is about, as a claim asks for it.
    whom        text           not null generated always as (
        case subject
            when 'merchant' then 'merchant:' || coalesce(merchant_id::text, '*')
            when 'key' then 'key:' || coalesce(api_key_id::text, '*')
                || '@' || coalesce(merchant_id::text, '*')
            when 'payer' then 'payer:' || coalesce('0x' || encode(payer, 'hex'), '*')
            else 'payer:' || coalesce('0x' || encode(payer, 'hex'), '*')
                || '@' || coalesce(merchant_id::text, '*')
        end) stored,

    constraint cap_key unique nulls not distinct
        (whom, set_by, measure, period, chain_id, asset),
    constraint cap_setter_check check
        (set_by = 'operator' or (merchant_id is not null and subject <> 'payer')),
    constraint cap_named_check check
        ((api_key_id is null or (subject = 'key' and merchant_id is not null))
            and (payer is null or subject in ('payer', 'payer_at_merchant'))
            and (merchant_id is null or subject <> 'payer')),
    constraint cap_extent_check check
        (case measure
            when 'amount' then chain_id is not null and asset is not null
            when 'count' then period <> 'payment' and (asset is null or chain_id is not null)
            else period = 'day' and subject in ('merchant', 'payer')
                and chain_id is not null and asset is null
        end)
);

create index cap_merchant_idx on cap (merchant_id, cap_id) where merchant_id is not null;
create index cap_payer_idx on cap (payer) where payer is not null;

-- What a coin costs in an asset. Payments that move less than their gas are refused then.
create table asset_price
(
    chain_id            text           not null check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    asset               bytea          not null check (length(asset) = 20),
    -- The asset's base units for a whole coin, 10^18 wei.
    base_units_per_coin numeric(78, 0) not null
        check (base_units_per_coin > 0 and base_units_per_coin < 2::numeric ^ 256),

    constraint asset_price_pkey primary key (chain_id, asset)
);

-- What the gas of mined transactions came to, by UTC day. Written with the gas entries of the ledger, by
-- the one follower of each chain, and read by claims.
create table gas_spent
(
    chain_id text    not null,
    -- `merchant:<id>` or `payer:0x…`.
    subject  text    not null,
    day      date    not null,
    wei      numeric not null,

    constraint gas_spent_pkey primary key (chain_id, subject, day)
);

alter table settlement
    -- What it may cost in gas, by the prices of when it was claimed; zero where no gas budget asks.
    add column gas_reserved_wei numeric(78, 0) not null default 0 check (gas_reserved_wei >= 0);

-- What is unmined counts against gas budgets as estimated.
create index settlement_gas_merchant_idx on settlement (chain_id, merchant_id)
    where status in ('claimed', 'submitted') and gas_reserved_wei > 0;
create index settlement_gas_payer_idx on settlement (chain_id, payer)
    where status in ('claimed', 'submitted') and gas_reserved_wei > 0;
-- What was claimed before a cap was made, within its first window.
create index settlement_merchant_idx on settlement (merchant_id, created_at);
create index settlement_payer_idx on settlement (payer, created_at);

-- Claims add up what failed of a counter while others wait for it.
drop index budget_hold_released_idx;
create index budget_hold_released_idx on budget_hold (counter_id) include (amount) where is_released;

-- As before, and told apart from those who count what was claimed before their cap was made: a failure
-- is either seen by them, or sees what they wrote. The lock's number is that of src/limits/caps/earlier.rs.
-- Whoever fails settlements waits here for a count, and no count waits for anything of theirs.
create or replace function budget_release() returns trigger language plpgsql as
$$
begin
    perform pg_advisory_xact_lock_shared(8175556647099458924);
    update budget_hold set is_released = (new.status = 'failed')
        where settlement_id = new.settlement_id;
    return null;
end
$$;
