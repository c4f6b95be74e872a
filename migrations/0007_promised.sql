-- What a payer has promised already, for verification.

-- Also what the follower looks for in each block: the index that this replaces was without the payer.
create index settlement_unmined_idx on settlement (chain_id, asset, payer)
    where status in ('claimed', 'submitted');
drop index settlement_unfinished_idx;
-- What the newest blocks took from a payer, even where every block is final at once.
create index settlement_mined_idx on settlement (chain_id, asset, payer, block_number)
    where status in ('included', 'safe', 'finalized');

-- Whether Redis may be believed when it says that nobody promised anything for a payer. One row per
-- chain, none where Redis was never used. See src/facilitator/promised.rs.
create table promise_filter
(
    chain_id   text primary key check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    -- Redis holds a key of this name for as long as it has lost nothing since the generation began.
    generation uuid        not null,
    -- The Redis server, and the history of its data.
    server     text        not null,
    -- building: claims mark their payers, and those of before are being marked. trusted: every payer
    -- is marked. stale: one may not be, until another generation begins.
    state      text        not null default 'building'
        check (state in ('building', 'trusted', 'stale')),
    -- The applied head when it came to be trusted: what was final by then was not marked.
    from_block bigint      not null default 0 check (from_block >= 0),
    began_at   timestamptz not null default now()
);

-- A generation is trusted once, and never again after it was not.
create function promise_filter_guard() returns trigger language plpgsql as
$$
begin
    if old.generation = new.generation and old.state <> new.state
        and (old.state, new.state) not in
            (('building', 'trusted'), ('building', 'stale'), ('trusted', 'stale'))
    then
        raise exception 'promises on % may not go from % to %', old.chain_id, old.state, new.state;
    end if;
    return new;
end
$$;

create trigger promise_filter_guard before update on promise_filter
    for each row execute function promise_filter_guard();
