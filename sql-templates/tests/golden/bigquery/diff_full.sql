-- write the differences
create table `levin_planner`.`p6f0c2a9e_s1_diff_7` cluster by _levin_sequence as
select
  case
    when m.`id` is null then 'removed'
    when k.`id` is null then 'added'
    else 'changed'
  end as _levin_operation,
  case
    when m.`id` is null or k.`id` is null then null
    else case when to_json_string(m.`email`) is distinct from to_json_string(k.`email`) then '1' else '0' end
      || case when m.`O"Brien's ltv` is distinct from k.`O"Brien's ltv` then '1' else '0' end
      || case when if(m.`profile` is null, null, to_json_string(m.`profile`)) is distinct from if(k.`profile` is null, null, to_json_string(k.`profile`)) then '1' else '0' end
  end as _levin_changed,
  cast(null as string) as _levin_version,
  coalesce(m.`id`, k.`id`) as `id`,
  m.`email`,
  m.`O"Brien's ltv`,
  m.`profile`,
  struct(k.`id` as `id`, k.`email` as `email`, k.`O"Brien's ltv` as `O"Brien's ltv`, k.`profile` as `profile`) as _levin_previous, row_number() over () as _levin_sequence
from (
  select * from (
select * from customers -- all of them;
) as m
  where m.`id` is not null
) as m
full join `levin_planner`.`p6f0c2a9e_s1_snapshot` as k on m.`id` = k.`id`
where (m.`id` is null
  or k.`id` is null
  or to_json_string(m.`email`) is distinct from to_json_string(k.`email`)
  or m.`O"Brien's ltv` is distinct from k.`O"Brien's ltv`
  or if(m.`profile` is null, null, to_json_string(m.`profile`)) is distinct from if(k.`profile` is null, null, to_json_string(k.`profile`))
)
union all
select 'queried', if(count(*) is null, null, to_json_string(count(*))), if(coalesce(sum(case when m.`id` is null then 1 else 0 end), 0) is null, null, to_json_string(coalesce(sum(case when m.`id` is null then 1 else 0 end), 0))),
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
  select cast(_levin_changed as int64) as queried, cast(_levin_version as int64) as null_keys
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
  where _levin_operation = 'queried'
) as q
cross join (
  select
    cast(coalesce(sum(case when _levin_operation = 'added' then 1 else 0 end), 0) as int64) as added,
    cast(coalesce(sum(case when _levin_operation = 'added' and _levin_changed is null then 1 else 0 end), 0) as int64) as new_keys,
    cast(coalesce(sum(case when _levin_operation = 'changed' then 1 else 0 end), 0) as int64) as changed,
    cast(coalesce(sum(case when _levin_operation = 'removed' and _levin_changed is null then 1 else 0 end), 0) as int64) as gone,
    cast(coalesce(sum(case when _levin_operation = 'removed' then 1 else 0 end), 0) as int64) as removed
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
) as r
cross join (select count(*) as known from `levin_planner`.`p6f0c2a9e_s1_snapshot` as k) as s;

-- forget the count
delete from `levin_planner`.`p6f0c2a9e_s1_diff_7` where _levin_operation = 'queried';

