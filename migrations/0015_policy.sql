-- What owners of paying wallets signed about their spending: policies, revocations, releases. Append-only;
-- of one account and asset, the one with the highest nonce is in force. See src/policies/mod.rs.
create table spending_policy
(
    policy_id  uuid           not null primary key,
    -- Grows in the order of commits: whoever inserts holds a lock until the end of its transaction.
    change_id  bigint         not null generated always as identity unique,
    -- The same for everything that was ever signed about one account and asset: what budgets that
    -- outlast a policy are counted under.
    account_id uuid           not null,
    chain_id   text           not null,
    account    bytea          not null check (length(account) = 20),
    asset      bytea          not null check (length(asset) = 20),
    nonce      numeric(78, 0) not null check (nonce between 0 and 2::numeric ^ 256 - 1),
    -- policy: limits. revocation: nothing may be spent. release: there are no limits any more.
    kind       text           not null check (kind in ('policy', 'revocation', 'release')),
    -- Who may sign what comes next.
    owner      bytea          not null check (length(owner) = 20),
    -- Who signed this, and the evidence: JSON as it is told, and the signature over its EIP-712 digest.
    signer     bytea          not null check (length(signer) = 20),
    document   text           not null,
    signature  bytea          not null,
    created_at timestamptz    not null default now(),

    constraint spending_policy_nonce_key unique (chain_id, account, asset, nonce)
);

create trigger spending_policy_append_only before update or delete or truncate on spending_policy
    for each statement execute function refuse_change();
revoke update, delete, truncate on spending_policy from public;
