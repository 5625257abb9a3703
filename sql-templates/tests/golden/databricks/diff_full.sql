-- write the differences
create table `levin_planner`.`p6f0c2a9e_s1_diff_7` tblproperties ('delta.feature.catalogManaged' = 'supported', 'delta.columnMapping.mode' = 'name') as
select
  case
    when m.`id` is null then 'removed'
    when k.`id` is null then 'added'
    else 'changed'
  end as _levin_operation,
  case
    when m.`id` is null or k.`id` is null then null
    else case when m.`email` is distinct from k.`email` then '1' else '0' end
      || case when m.`O"Brien's ltv` is distinct from k.`O"Brien's ltv` then '1' else '0' end
      || case when m.`profile` is distinct from k.`profile` then '1' else '0' end
  end as _levin_changed,
  cast(null as string) as _levin_version,
  coalesce(m.`id`, k.`id`) as `id`,
  m.`email`,
  m.`O"Brien's ltv`,
  m.`profile`,
  struct(k.`id` as `id`, k.`email` as `email`, k.`O"Brien's ltv` as `O"Brien's ltv`, k.`profile` as `profile`) as _levin_previous, monotonically_increasing_id() as _levin_sequence
from (
  select * from (
select * from customers -- all of them;
) as m
  where m.`id` is not null
) as m
full join `levin_planner`.`p6f0c2a9e_s1_snapshot` as k on m.`id` = k.`id`
where (m.`id` is null
  or k.`id` is null
  or m.`email` is distinct from k.`email`
  or m.`O"Brien's ltv` is distinct from k.`O"Brien's ltv`
  or m.`profile` is distinct from k.`profile`
)
union all
select 'queried', cast(count(*) as string), cast(coalesce(sum(case when m.`id` is null then 1 else 0 end), 0) as string),
  null,
  null,
  null,
  null,
null, 0
from (
select * from customers -- all of them;
) as m;

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known,
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from `levin_planner`.`p6f0c2a9e_s1_diff_7` group by `id` having count(*) > 1) as r) as own_duplicates,
  0 as longest_key
from (
  select cast(_levin_changed as bigint) as queried, cast(_levin_version as bigint) as null_keys
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
  where _levin_operation = 'queried'
) as q
cross join (
  select
    cast(coalesce(sum(case when _levin_operation = 'added' then 1 else 0 end), 0) as bigint) as added,
    cast(coalesce(sum(case when _levin_operation = 'added' and _levin_changed is null then 1 else 0 end), 0) as bigint) as new_keys,
    cast(coalesce(sum(case when _levin_operation = 'changed' then 1 else 0 end), 0) as bigint) as changed,
    cast(coalesce(sum(case when _levin_operation = 'removed' and _levin_changed is null then 1 else 0 end), 0) as bigint) as gone,
    cast(coalesce(sum(case when _levin_operation = 'removed' then 1 else 0 end), 0) as bigint) as removed
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
) as r
cross join (select count(*) as known from `levin_planner`.`p6f0c2a9e_s1_snapshot` as k) as s;

-- forget the count
delete from `levin_planner`.`p6f0c2a9e_s1_diff_7` where _levin_operation = 'queried';

