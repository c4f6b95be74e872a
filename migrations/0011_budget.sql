-- What was spent of budgets: of the operator's and merchants' caps, and of payers' own policies.
-- See src/limits/budget.rs.
create table budget_counter
(
    counter_id   bigint generated always as identity primary key,
    -- The cap or the policy that sets the budget.
    rule_id      uuid        not null,
    -- Whose spending, where one rule gives each of many a budget of its own.
    subject      text        not null check (length(subject) <= 200),
    -- The UTC hour or day, or '-infinity' for a budget that never begins anew.
    window_start timestamptz not null,
    -- Everything that was ever claimed in the window, what failed since included.
    n_payments   bigint      not null check (n_payments >= 0),
    amount       numeric     not null check (amount >= 0),

    constraint budget_counter_key unique (rule_id, subject, window_start)
);

-- One row for each budget that a settlement was counted in.
create table budget_hold
(
    settlement_id uuid           not null references settlement,
    counter_id    bigint         not null references budget_counter,
    amount        numeric(78, 0) not null check (amount >= 0),
    -- The settlement failed: it is taken off again.
    is_released   boolean        not null default false,

    constraint budget_hold_pkey primary key (settlement_id, counter_id)
);

create index budget_hold_released_idx on budget_hold (counter_id) where is_released;

-- Whatever makes a settlement fail, or takes the failure back, moves its budgets along. Touches no row
-- that another settlement shares, so that it cannot deadlock with claims.
create function budget_release() returns trigger language plpgsql as
$$
begin
    update budget_hold set is_released = (new.status = 'failed')
        where settlement_id = new.settlement_id;
    return null;
end
$$;

create trigger budget_release after update of status on settlement
    for each row when ((old.status = 'failed') <> (new.status = 'failed'))
    execute function budget_release();
