-- One row per payment we have promised to settle. Rows are never deleted.
create table settlement
(
    settlement_id       uuid primary key,
    merchant_id         uuid           not null references merchant,
    api_key_id          uuid           not null references api_key,
    x402_version        smallint       not null check (x402_version in (1, 2)),
    scheme              text           not null check (scheme in ('exact')),
    chain_id            text           not null check (chain_id ~ '^eip155:[1-9][0-9]*$'),
    asset               bytea          not null check (length(asset) = 20),
    payer               bytea          not null check (length(payer) = 20),
    payee               bytea          not null check (length(payee) = 20),
    -- Base units. numeric(78, 0) holds every uint256 and, unlike bytea, can be summed in SQL.
    amount              numeric(78, 0) not null check (amount >= 0 and amount < 2::numeric ^ 256),
    valid_after         numeric(78, 0) not null check (valid_after >= 0 and valid_after < 2::numeric ^ 256),
    valid_before        numeric(78, 0) not null check (valid_before >= 0 and valid_before < 2::numeric ^ 256),
    authorization_nonce bytea          not null check (length(authorization_nonce) = 32),
    signature           bytea          not null check (length(signature) = 65),
    token_name          text           not null,
    token_version       text           not null,
    -- The EIP-712 digest: equal digests are equal authorizations, whatever their signature's spelling.
    digest              bytea          not null check (length(digest) = 32),
    resource            text,
    -- The height at which the chain would have executed it. Logs from here on can concern it.
    verified_block      bigint         not null check (verified_block >= 0),

    status              text           not null default 'claimed'
        check (status in ('claimed', 'submitted', 'included', 'safe', 'finalized', 'failed')),
    failure_reason      text,
    failure_message     text,
    -- How many of our transactions have carried it so far.
    n_transactions      integer        not null default 0 check (n_transactions >= 0),
    -- No wallet looks at it before.
    not_before          timestamptz    not null default now(),
    -- Where the evidence stands, while it stands.
    transaction_hash    bytea check (length(transaction_hash) = 32),
    block_hash          bytea check (length(block_hash) = 32),
    block_number        bigint check (block_number >= 0),

    -- Which request of the resource server this is, in that server's words.
    idempotency_key     text,
    -- Until when one caller holds the right to be told the outcome. Null: nobody does.
    answer_held_until   timestamptz,
    -- When success was handed out. It is handed out once.
    answered_at         timestamptz,

    created_at          timestamptz    not null default now(),
    updated_at          timestamptz    not null default now(),

    -- An EIP-3009 authorization can move money once, so it can be claimed once. A repeated
    -- request finds this row; who may be told its outcome is decided elsewhere.
    constraint settlement_authorization_key unique (chain_id, asset, payer, authorization_nonce),
    constraint settlement_idempotency_key unique (merchant_id, idempotency_key),
    constraint settlement_failure_check check ((status = 'failed') = (failure_reason is not null)),
    constraint settlement_evidence_check check
        ((status in ('included', 'safe', 'finalized'))
            = (transaction_hash is not null and block_hash is not null and block_number is not null))
);

-- What a wallet sends next; what has been sent never enters this index.
create index settlement_claimed_idx on settlement (chain_id, not_before, created_at)
    where status = 'claimed';
-- What the follower looks for in each block, and what a reorg can take back.
create index settlement_unfinished_idx on settlement (chain_id, asset)
    where status in ('claimed', 'submitted');
create index settlement_failed_idx on settlement (chain_id, valid_before) where status = 'failed';
create index settlement_evidence_idx on settlement (chain_id, block_number)
    where status in ('included', 'safe');

-- The state machine of src/domain/settlement.rs, held where a mistake in code cannot reach.
create function settlement_status_guard() returns trigger language plpgsql as
$$
begin
    if old.status <> new.status and (old.status, new.status) not in (
        ('claimed', 'submitted'), ('claimed', 'included'), ('claimed', 'failed'),
        ('submitted', 'claimed'), ('submitted', 'included'), ('submitted', 'failed'),
        ('included', 'safe'), ('included', 'submitted'), ('included', 'claimed'),
        ('safe', 'finalized'), ('safe', 'submitted'), ('safe', 'claimed'),
        ('failed', 'included'))
    then
        raise exception 'settlement % may not go from % to %', old.settlement_id, old.status, new.status;
    end if;
    if old.answered_at is not null and new.answered_at is distinct from old.answered_at then
        raise exception 'settlement % was answered already', old.settlement_id;
    end if;
    return new;
end
$$;

create trigger settlement_status_guard before update on settlement
    for each row execute function settlement_status_guard();

-- Append-only. The status above is the last event here; callers, webhooks and people read this table.
create table event
(
    event_id         bigint generated always as identity primary key,
    settlement_id    uuid        not null references settlement,
    -- Null in the first event of a settlement.
    status_from      text,
    status_to        text        not null,
    transaction_hash bytea check (length(transaction_hash) = 32),
    block_number     bigint,
    block_hash       bytea check (length(block_hash) = 32),
    detail           text,
    created_at       timestamptz not null default now()
);

create index event_settlement_idx on event (settlement_id, event_id);

create function refuse_change() returns trigger language plpgsql as
$$
begin
    raise exception '% is append-only', tg_table_name;
end
$$;

create trigger event_append_only before update or delete or truncate on event
    for each statement execute function refuse_change();
