-- stage the model
create table `levin_planner`.`p6f0c2a9e_s1_model_7` as
select `id`, `email`, `O"Brien's ltv`, `profile`
from (
select * from customers -- all of them;
) as m;

-- write the rows
create table `levin_planner`.`p6f0c2a9e_s1_diff_7` cluster by _levin_sequence as
select m.`id`, m.`email`, m.`O"Brien's ltv`, m.`profile`, cast(7 as int64) as _levin_generation, row_number() over () as _levin_sequence
  , case
    when m.`email` is null then 'NULL_MATCH_VALUE'
    when contested._levin_claimants is not null then 'DUPLICATE_MATCH_VALUE'
  end as _levin_claim
from `levin_planner`.`p6f0c2a9e_s1_model_7` as m
left join (
  select `email`, count(*) as _levin_claimants
  from `levin_planner`.`p6f0c2a9e_s1_model_7` as m
  where m.`id` is not null
  group by `email`
  having count(*) > 1
) as contested on contested.`email` = m.`email`
where m.`id` is not null;

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, 0 as changed, 0 as removed, 0 as known, r.added as expected,
  (select count(*) from (select 1 as one from `levin_planner`.`p6f0c2a9e_s1_diff_7` group by `id` having count(*) > 1) as r) as own_duplicates, 0 as longest_key
from (
  select count(*) as queried, cast(coalesce(sum(case when m.`id` is null then 1 else 0 end), 0) as int64) as null_keys
  from `levin_planner`.`p6f0c2a9e_s1_model_7` as m
) as q
cross join (select count(*) as added from `levin_planner`.`p6f0c2a9e_s1_diff_7`) as r;

-- drop the staged model
drop table `levin_planner`.`p6f0c2a9e_s1_model_7`;

