-- write the differences
create table `levin_planner`.`p6f0c2a9e_s1_diff_7` as
select w.*, row_number() over () as _levin_sequence
from (
select
  case
    when m.`id` is null then 'removed'
    when k.`id` is null then 'added'
    else 'changed'
  end as _levin_operation,
  case
    when m.`id` is null or k.`id` is null then null
    else '000'
  end as _levin_changed,
  cast(null as char(16777216)) as _levin_version,
  coalesce(m.`id`, k.`id`) as `id`,
  m.`email`,
  m.`O"Brien's ltv`,
  m.`profile`,
  k.`id` as _levin_previous0, k.`email` as _levin_previous1, k.`O"Brien's ltv` as _levin_previous2, k.`profile` as _levin_previous3
from (
  select * from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m
  where m.`id` is not null
) as m
left join `levin_planner`.`p6f0c2a9e_s1_snapshot` as k on m.`id` = k.`id`
where (m.`id` is null
  or k.`id` is null
)
union all
select
  case
    when m.`id` is null then 'removed'
    when k.`id` is null then 'added'
    else 'changed'
  end as _levin_operation,
  case
    when m.`id` is null or k.`id` is null then null
    else '000'
  end as _levin_changed,
  cast(null as char(16777216)) as _levin_version,
  coalesce(m.`id`, k.`id`) as `id`,
  m.`email`,
  m.`O"Brien's ltv`,
  m.`profile`,
  k.`id` as _levin_previous0, k.`email` as _levin_previous1, k.`O"Brien's ltv` as _levin_previous2, k.`profile` as _levin_previous3
from `levin_planner`.`p6f0c2a9e_s1_snapshot` as k
left join (
  select * from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m
  where m.`id` is not null
) as m on m.`id` = k.`id`
where m.`id` is null and(m.`id` is null
  or k.`id` is null
)
) as w
union all
select 'queried', cast(count(*) as char), cast(coalesce(sum(case when m.`id` is null then 1 else 0 end), 0) as char),
  null,
  null,
  null,
  null,
null, null, null, null, 0
from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m;

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known,
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from `levin_planner`.`p6f0c2a9e_s1_diff_7` group by `id` having count(*) > 1) as r) as own_duplicates,
  0 as longest_key
from (
  select cast(_levin_changed as signed) as queried, cast(_levin_version as signed) as null_keys
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
  where _levin_operation = 'queried'
) as q
cross join (
  select
    cast(coalesce(sum(case when _levin_operation = 'added' then 1 else 0 end), 0) as signed) as added,
    cast(coalesce(sum(case when _levin_operation = 'added' and _levin_changed is null then 1 else 0 end), 0) as signed) as new_keys,
    cast(coalesce(sum(case when _levin_operation = 'changed' then 1 else 0 end), 0) as signed) as changed,
    cast(coalesce(sum(case when _levin_operation = 'removed' and _levin_changed is null then 1 else 0 end), 0) as signed) as gone,
    cast(coalesce(sum(case when _levin_operation = 'removed' then 1 else 0 end), 0) as signed) as removed
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
) as r
cross join (select cast(990 as signed) as known) as s;

-- forget the count
delete from `levin_planner`.`p6f0c2a9e_s1_diff_7` where _levin_operation = 'queried';

