-- Double entry, append-only: every row moves an amount from one account to another.
--
-- subject 'payment': pending when claimed; then post on evidence or void on proven failure;
--   reverse when a reorg takes the evidence back. Accounts are `payer:0x…` and `payee:0x…`.
-- subject 'gas': post for each mined transaction that carried the settlement (its share of the fee,
--   in wei of the chain's own coin), reverse when a reorg takes the block back.
--   Accounts are `wallet:0x…` and `gas:<merchant id>`.
create table ledger_entry
(
    ledger_entry_id bigint generated always as identity primary key,
    settlement_id   uuid           not null references settlement,
    subject         text           not null check (subject in ('payment', 'gas')),
    kind            text           not null check (kind in ('pending', 'post', 'void', 'reverse')),
    -- Counts the entries of one settlement, subject and kind.
    sequence        integer        not null check (sequence >= 0),
    debit_account   text           not null,
    credit_account  text           not null,
    -- `eip155:8453/0x…` for a token, `eip155:8453/native` for the chain's own coin.
    asset           text           not null,
    amount          numeric(78, 0) not null check (amount >= 0 and amount < 2::numeric ^ 256),
    transaction_id  bigint references transaction,
    block_hash      bytea check (length(block_hash) = 32),
    created_at      timestamptz    not null default now(),

    constraint ledger_entry_sequence_key unique (settlement_id, subject, kind, sequence),
    constraint ledger_entry_accounts_check check (debit_account <> credit_account),
    constraint ledger_entry_evidence_check check (kind not in ('post', 'reverse') or block_hash is not null)
);

create trigger ledger_entry_append_only before update or delete or truncate on ledger_entry
    for each statement execute function refuse_change();

-- A payment is posted at most once net, and voided at most once, whatever the code does. Writers hold the settlement's row
-- lock, so two of them cannot both see zero.
create function ledger_entry_net_guard() returns trigger language plpgsql as
$$
declare
    n_posts    integer;
    n_reverses integer;
    n_voids    integer;
begin
    select count(*) filter (where kind = 'post'), count(*) filter (where kind = 'reverse'),
            count(*) filter (where kind = 'void')
        into n_posts, n_reverses, n_voids
        from ledger_entry
        where settlement_id = new.settlement_id and subject = 'payment';
    if n_posts - n_reverses not in (0, 1) then
        raise exception 'settlement % would be posted % times', new.settlement_id, n_posts - n_reverses;
    end if;
    -- Between two failures lies a payment that a reorganization took back.
    if n_voids > n_reverses + 1 then
        raise exception 'settlement % would be voided again', new.settlement_id;
    end if;
    return null;
end
$$;

create trigger ledger_entry_net_guard after insert on ledger_entry
    for each row when (new.subject = 'payment') execute function ledger_entry_net_guard();

-- Nobody but the owner may ever be granted a change; the triggers above stop the owner too.
revoke update, delete, truncate on ledger_entry, event from public;
