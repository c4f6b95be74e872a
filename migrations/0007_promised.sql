-- What a payer has promised already, for verification.

-- Also what the follower looks for in each block: the index that this replaces was without the payer.
create index settlement_unmined_idx on settlement (chain_id, asset, payer)
    where status in ('claimed', 'submitted');
drop index settlement_unfinished_idx;
-- What the newest blocks took from a payer, even where every block is final at once.
create index settlement_mined_idx on settlement (chain_id, asset, payer, block_number)
    where status in ('included', 'safe', 'finalized');
