-- Who changed what in the house: merchants, keys, limits, lists, policies. Append-only, written in the
-- database transaction of the change itself.
create table audit
(
    audit_id    bigint generated always as identity primary key,
    created_at  timestamptz not null default now(),
    -- command: somebody at the command line. operator, merchant: by that API key. payee: whoever proved
    -- control of an address. payer: the owner of a paying wallet, by a signature. service: by itself.
    actor_kind  text        not null
        check (actor_kind in ('command', 'operator', 'merchant', 'payee', 'payer', 'service')),
    -- An operating system's user, an API key's id, or an address.
    actor       text        not null check (length(actor) between 1 and 200),
    -- The network address, or the host of the command line.
    origin      text        not null check (length(origin) between 1 and 200),
    -- Such as `merchant.suspend`.
    action      text        not null check (action ~ '^[a-z_]+\.[a-z_]+$'),
    -- What was changed: an id, or whatever names it.
    subject     text        not null check (length(subject) between 1 and 400),
    -- Whose it is, where it is a merchant's.
    merchant_id uuid references merchant,
    -- JSON for people, before and after the change. Null: it was not there, or is not any more.
    before      text,
    after       text
);

create index audit_merchant_idx on audit (merchant_id, audit_id);
create index audit_subject_idx on audit (subject, audit_id);

create trigger audit_append_only before update or delete or truncate on audit
    for each statement execute function refuse_change();
revoke update, delete, truncate on audit from public;
