-- write the rows
create table `levin_planner`.`p6f0c2a9e_s1_diff_7` cluster by _levin_sequence as
select m.`id`, m.`email`, m.`O"Brien's ltv`, m.`profile`, cast(7 as int64) as _levin_generation, row_number() over () as _levin_sequence
from (
select * from customers -- all of them;
) as m;

-- count (returns rows)
select r.queried, r.null_keys, 0 as duplicate_key_rows, r.queried - r.null_keys as added, 0 as changed, 0 as removed, 0 as known, r.queried - r.null_keys as expected,
  (select count(*) from (select 1 as one from `levin_planner`.`p6f0c2a9e_s1_diff_7` group by `id` having count(*) > 1) as r) as own_duplicates, 0 as longest_key
from (
  select count(*) as queried, cast(coalesce(sum(case when m.`id` is null then 1 else 0 end), 0) as int64) as null_keys
  from `levin_planner`.`p6f0c2a9e_s1_diff_7` as m
) as r;

