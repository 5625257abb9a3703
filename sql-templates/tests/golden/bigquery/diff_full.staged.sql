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

-- write the differences
create table `levin_planner`.`p6f0c2a9e_s1_diff_7` cluster by _levin_sequence as
select
  case
    when m.`tenant` is null then 'removed'
    when k.`tenant` is null then 'added'
    else 'changed'
  end as _levin_operation,
  case
    when m.`tenant` is null or k.`tenant` is null then null
    else case when to_json_string(m.`email`) is distinct from to_json_string(k.`email`) then '1' else '0' end
  end as _levin_changed,
  cast(null as string) as _levin_version,
  coalesce(m.`tenant`, k.`tenant`) as `tenant`,
  coalesce(m.`id`, k.`id`) as `id`,
  m.`email`,
  struct(k.`tenant` as `tenant`, k.`id` as `id`, k.`email` as `email`) as _levin_previous, row_number() over () as _levin_sequence
from (
  select * from `levin_planner`.`p6f0c2a9e_s1_model_7` as m
  where m.`tenant` is not null and m.`id` is not null
    and not exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_set_aside_7` as a where a.`tenant` = m.`tenant` and a.`id` = m.`id`)
) as m
full join (
  select s.*
  from `levin_planner`.`p6f0c2a9e_s1_snapshot` as s
  where not exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_set_aside_7` as a where a.`tenant` = s.`tenant` and a.`id` = s.`id`)
) as k on m.`tenant` = k.`tenant` and m.`id` = k.`id`
where (m.`tenant` is null
  or k.`tenant` is null
  or to_json_string(m.`email`) is distinct from to_json_string(k.`email`)
);

-- count (returns rows)
select q.queried, q.null_keys, a.duplicate_key_rows, r.added, r.changed, r.removed, s.known,
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from `levin_planner`.`p6f0c2a9e_s1_diff_7` group by `tenant`, `id` having count(*) > 1) as r) as own_duplicates,
  0 as longest_key
from (
  select count(*) as queried, cast(coalesce(sum(case when m.`tenant` is null or m.`id` is null then 1 else 0 end), 0) as int64) as null_keys
  from `levin_planner`.`p6f0c2a9e_s1_model_7` as m
) as q
cross join (
  select
    cast(coalesce(sum(case when _levin_code = 'DUPLICATE_PRIMARY_KEY' then _levin_rows else 0 end), 0) as int64) as duplicate_key_rows
  from `levin_planner`.`p6f0c2a9e_s1_set_aside_7`
) as a
cross join (
  select
    cast(coalesce(sum(case when _levin_operation = 'added' then 1 else 0 end), 0) as int64) as added,
    cast(coalesce(sum(case when _levin_operation = 'added' and _levin_changed is null then 1 else 0 end), 0) as int64) as new_keys,
    cast(coalesce(sum(case when _levin_operation = 'changed' then 1 else 0 end), 0) as int64) as changed,
    cast(coalesce(sum(case when _levin_operation = 'removed' and _levin_changed is null then 1 else 0 end), 0) as int64) as gone,
    cast(coalesce(sum(case when _levin_operation = 'removed' then 1 else 0 end), 0) as int64) as removed
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
) as r
cross join (select count(*) as known from (
  select s.*
  from `levin_planner`.`p6f0c2a9e_s1_snapshot` as s
  where not exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_set_aside_7` as a where a.`tenant` = s.`tenant` and a.`id` = s.`id`)
) as k) as s;

-- drop the staged model
drop table `levin_planner`.`p6f0c2a9e_s1_model_7`;

