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

-- park rows that were refused too often
update `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
set _levin_operation = 'parked_' || f._levin_operation
where exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_rejections` as r where r._levin_parked and r.`id` = f.`id` and r._levin_operation = f._levin_operation and r._levin_fingerprint = to_hex(sha256('4f2a' || case when f._levin_operation = 'removed' then 'removed' else f._levin_operation || coalesce(if(length(if(f.`email` is null, null, to_json_string(f.`email`))) is null, null, to_json_string(length(if(f.`email` is null, null, to_json_string(f.`email`))))) || ':' || if(f.`email` is null, null, to_json_string(f.`email`)), '-') || coalesce(if(length(if(f.`O"Brien's ltv` is null, null, to_json_string(f.`O"Brien's ltv`))) is null, null, to_json_string(length(if(f.`O"Brien's ltv` is null, null, to_json_string(f.`O"Brien's ltv`))))) || ':' || if(f.`O"Brien's ltv` is null, null, to_json_string(f.`O"Brien's ltv`)), '-') || coalesce(if(length(if(f.`profile` is null, null, to_json_string(f.`profile`))) is null, null, to_json_string(length(if(f.`profile` is null, null, to_json_string(f.`profile`))))) || ':' || if(f.`profile` is null, null, to_json_string(f.`profile`)), '-') end)));

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known, r.parked_added, r.parked_changed, r.parked_removed,
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
    cast(coalesce(sum(case when _levin_operation in ('added', 'parked_added') then 1 else 0 end), 0) as int64) as added,
    cast(coalesce(sum(case when _levin_operation in ('added', 'parked_added') and _levin_changed is null then 1 else 0 end), 0) as int64) as new_keys,
    cast(coalesce(sum(case when _levin_operation in ('changed', 'parked_changed') then 1 else 0 end), 0) as int64) as changed,
    cast(coalesce(sum(case when _levin_operation in ('removed', 'parked_removed') and _levin_changed is null then 1 else 0 end), 0) as int64) as gone,
    cast(coalesce(sum(case when _levin_operation in ('removed', 'parked_removed') then 1 else 0 end), 0) as int64) as removed,
    cast(coalesce(sum(case when _levin_operation = 'parked_added' then 1 else 0 end), 0) as int64) as parked_added,
    cast(coalesce(sum(case when _levin_operation = 'parked_changed' then 1 else 0 end), 0) as int64) as parked_changed,
    cast(coalesce(sum(case when _levin_operation = 'parked_removed' then 1 else 0 end), 0) as int64) as parked_removed
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
) as r
cross join (select count(*) as known from `levin_planner`.`p6f0c2a9e_s1_snapshot` as k) as s;

-- forget the count
delete from `levin_planner`.`p6f0c2a9e_s1_diff_7` where _levin_operation = 'queried';

