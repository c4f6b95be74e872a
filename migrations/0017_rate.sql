-- How often a merchant may ask, where the operator gave it a rate of its own. A merchant without a row has
-- the rate of the settings.
create table merchant_rate
(
    merchant_id uuid        not null references merchant,
    class       text        not null check (class in ('verify', 'settle', 'read')),
    -- So many a second in the long run, and so many at once (src/domain/rate.rs).
    per_second  integer     not null check (per_second between 1 and 100000),
    burst       integer     not null check (burst between 1 and 600 * per_second),
    created_at  timestamptz not null default now(),

    constraint merchant_rate_pkey primary key (merchant_id, class)
);
