-- Several settlements in a transaction, several wallets on a chain, and depths that callers choose.

alter table wallet
    -- active: signs. paused: an operator stopped it. draining: signs nothing new, then retires.
    -- quarantined: its key was used by somebody else.
    add column status text not null default 'active'
        check (status in ('active', 'paused', 'draining', 'retired', 'quarantined')),
    add column status_reason text;

alter table transaction
    -- pay: settlements. retry: settlements that a transaction left unpaid before. deploy: a contract.
    add column purpose text not null default 'pay' check (purpose in ('pay', 'retry', 'deploy')),
    -- The epoch of the wallet's lease under which it was stored.
    add column epoch bigint not null default 0,
    -- What it used and cost, once it is mined.
    add column gas_used bigint check (gas_used >= 0),
    add column fee_wei numeric(78, 0) check (fee_wei >= 0),
    -- The part of fee_wei that pays for data on L1.
    add column l1_fee_wei numeric(78, 0) check (l1_fee_wei >= 0),
    drop constraint transaction_status_check,
    drop constraint transaction_mined_check,
    -- foreign: proven that bytes we do not know used the account nonce.
    add constraint transaction_status_check check (status in ('open', 'mined', 'finalized', 'foreign')),
    add constraint transaction_mined_check check
        ((status in ('mined', 'finalized'))
            = (mined_hash is not null and block_hash is not null and block_number is not null));

alter table attempt
    -- cancel: pays nobody and only uses up the account nonce.
    add column kind text not null default 'payload' check (kind in ('payload', 'cancel'));

-- The nonces below the next one are dense, whoever writes.
create function wallet_nonce_guard() returns trigger language plpgsql as
$$
begin
    if new.next_account_nonce < old.next_account_nonce then
        raise exception 'the account nonce of wallet % may not fall', old.wallet_id;
    end if;
    return new;
end
$$;

create trigger wallet_nonce_guard before update on wallet
    for each row execute function wallet_nonce_guard();

alter table settlement
    -- How many others may travel with it: null as many as fit, 1 none. Falls when a transaction that
    -- carried it left it unpaid.
    add column n_together_max integer check (n_together_max > 0),
    -- How many transactions carried it alone.
    add column n_alone integer not null default 0 check (n_alone >= 0),
    -- A wallet is about to sign for it. A hint between wallets; losing it does no harm.
    add column reserved_until timestamptz not null default '-infinity',
    -- How deep its evidence must stand before success is handed out.
    add column wait_for text not null default 'included'
        check (wait_for in ('included', 'safe', 'finalized'));

-- A settlement's row is written five times in two seconds: room on its page spares its indexes.
alter table settlement set (fillfactor = 50);

-- A claim's entry is the first of its settlement: there is nothing to count.
drop trigger ledger_entry_net_guard on ledger_entry;
create trigger ledger_entry_net_guard after insert on ledger_entry
    for each row when (new.subject = 'payment' and new.kind <> 'pending')
    execute function ledger_entry_net_guard();

alter table merchant
    add column wait_for text not null default 'included'
        check (wait_for in ('included', 'safe', 'finalized'));
