-- stage the model
create table `levin_planner`.`p6f0c2a9e_s1_model_7` as
select `tenant`, `id`, `email`
from (
select * from customers -- all of them;
) as m;

-- set keys aside
create table `levin_planner`.`p6f0c2a9e_s1_set_aside_7` as
select `tenant`, `id`, count(*) as _levin_rows,
  case when m.`tenant` is null or m.`id` is null then 'NULL_PRIMARY_KEY' else 'DUPLICATE_PRIMARY_KEY' end as _levin_code
from `levin_planner`.`p6f0c2a9e_s1_model_7` as m
group by `tenant`, `id`
having count(*) > 1 or m.`tenant` is null or m.`id` is null;

-- write the rows
create table `levin_planner`.`p6f0c2a9e_s1_diff_7` cluster by _levin_sequence as
select m.`tenant`, m.`id`, m.`email`, cast(7 as int64) as _levin_generation, row_number() over () as _levin_sequence
from `levin_planner`.`p6f0c2a9e_s1_model_7` as m
where m.`tenant` is not null and m.`id` is not null
  and not exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_set_aside_7` as a where a.`tenant` = m.`tenant` and a.`id` = m.`id`);

-- count (returns rows)
select q.queried, q.null_keys, a.duplicate_key_rows, r.added, 0 as changed, 0 as removed, 0 as known, r.added as expected,
  (select count(*) from (select 1 as one from `levin_planner`.`p6f0c2a9e_s1_diff_7` group by `tenant`, `id` having count(*) > 1) as r) as own_duplicates, 0 as longest_key
from (
  select count(*) as queried, cast(coalesce(sum(case when m.`tenant` is null or m.`id` is null then 1 else 0 end), 0) as int64) as null_keys
  from `levin_planner`.`p6f0c2a9e_s1_model_7` as m
) as q
cross join (
  select
    cast(coalesce(sum(case when _levin_code = 'DUPLICATE_PRIMARY_KEY' then _levin_rows else 0 end), 0) as int64) as duplicate_key_rows
  from `levin_planner`.`p6f0c2a9e_s1_set_aside_7`
) as a
cross join (select count(*) as added from `levin_planner`.`p6f0c2a9e_s1_diff_7`) as r;

-- drop the staged model
drop table `levin_planner`.`p6f0c2a9e_s1_model_7`;

