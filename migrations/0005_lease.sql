-- Who owns a wallet, or reads the blocks of a chain. Time is the database's; every commit of an owner
-- holds its row and checks the epoch, so an owner that slept through a takeover commits nothing.
create table lease
(
    -- `wallet:<wallet id>` or `follower:<chain id>`.
    lease_name text primary key,
    -- One more with every owner; it never falls.
    epoch      bigint      not null check (epoch > 0),
    holder     uuid        not null,
    held_until timestamptz not null
);

create function lease_epoch_guard() returns trigger language plpgsql as
$$
begin
    if new.epoch < old.epoch or (new.holder <> old.holder and new.epoch = old.epoch) then
        raise exception 'the epoch of lease % may not go from % to %', old.lease_name, old.epoch, new.epoch;
    end if;
    return new;
end
$$;

create trigger lease_epoch_guard before update on lease
    for each row execute function lease_epoch_guard();

-- The processes that live, so that they share the wallets fairly.
create table replica
(
    replica_id uuid primary key,
    seen_at    timestamptz not null default now()
);
