-- Times for people: RFC 3339, UTC, whole seconds.
create function rfc3339(at timestamptz) returns text language sql stable strict parallel safe
    return to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');

-- Merchants can be stopped, for a while or for good. What was claimed before is settled all the same.
alter table merchant
    add column status text not null default 'active'
        check (status in ('active', 'suspended', 'closed')),
    -- Why it was last suspended, resumed or closed, in the operator's words.
    add column status_reason text check (length(status_reason) between 1 and 500),
    add column updated_at timestamptz not null default now();

create function merchant_status_guard() returns trigger language plpgsql as
$$
begin
    if old.status = 'closed' and new.status <> 'closed' then
        raise exception 'merchant % is closed, which is final', old.merchant_id;
    end if;
    return new;
end
$$;

create trigger merchant_status_guard before update of status on merchant
    for each row execute function merchant_status_guard();

-- Keys are kept as HMAC-SHA-256 under the pepper of the settings (src/merchants/key.rs), and carry a
-- checksum. Those from before have neither, and nobody can hash them anew: they are revoked.
alter table api_key
    add column scopes text[] not null default '{verify,settle,read}'
        constraint api_key_scopes_check check
            (cardinality(scopes) > 0 and scopes <@ array['verify', 'settle', 'read', 'manage']),
    -- For people.
    add column name text check (length(name) between 1 and 200),
    add column expires_at timestamptz,
    -- Within half a minute.
    add column last_used_at timestamptz,
    -- The key that took its place.
    add column replaced_by uuid references api_key;

update api_key set scopes = '{read,manage}' where role = 'operator';
update api_key set revoked_at = now() where revoked_at is null;
alter table api_key alter column scopes drop default;

create index api_key_merchant_idx on api_key (merchant_id, api_key_id);
