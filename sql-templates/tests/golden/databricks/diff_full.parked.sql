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

-- park rows that were refused too often
update `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
set _levin_operation = 'parked_' || f._levin_operation
where exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_rejections` as r where r._levin_parked and r.`id` = f.`id` and r._levin_operation = f._levin_operation and r._levin_fingerprint = sha2('4f2a' || case when f._levin_operation = 'removed' then 'removed' else f._levin_operation || coalesce(cast(length(case when f.`email` is not null then to_json(struct(f.`email` as v), map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSSXXX', 'timestampNTZFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSS')) end) as string) || ':' || case when f.`email` is not null then to_json(struct(f.`email` as v), map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSSXXX', 'timestampNTZFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSS')) end, '-') || coalesce(cast(length(case when f.`O"Brien's ltv` is not null then to_json(struct(f.`O"Brien's ltv` as v), map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSSXXX', 'timestampNTZFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSS')) end) as string) || ':' || case when f.`O"Brien's ltv` is not null then to_json(struct(f.`O"Brien's ltv` as v), map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSSXXX', 'timestampNTZFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSS')) end, '-') || coalesce(cast(length(case when f.`profile` is not null then to_json(struct(f.`profile` as v), map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSSXXX', 'timestampNTZFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSS')) end) as string) || ':' || case when f.`profile` is not null then to_json(struct(f.`profile` as v), map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSSXXX', 'timestampNTZFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSS')) end, '-') end, 256));

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known, r.parked_added, r.parked_changed, r.parked_removed,
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
    cast(coalesce(sum(case when _levin_operation in ('added', 'parked_added') then 1 else 0 end), 0) as bigint) as added,
    cast(coalesce(sum(case when _levin_operation in ('added', 'parked_added') and _levin_changed is null then 1 else 0 end), 0) as bigint) as new_keys,
    cast(coalesce(sum(case when _levin_operation in ('changed', 'parked_changed') then 1 else 0 end), 0) as bigint) as changed,
    cast(coalesce(sum(case when _levin_operation in ('removed', 'parked_removed') and _levin_changed is null then 1 else 0 end), 0) as bigint) as gone,
    cast(coalesce(sum(case when _levin_operation in ('removed', 'parked_removed') then 1 else 0 end), 0) as bigint) as removed,
    cast(coalesce(sum(case when _levin_operation = 'parked_added' then 1 else 0 end), 0) as bigint) as parked_added,
    cast(coalesce(sum(case when _levin_operation = 'parked_changed' then 1 else 0 end), 0) as bigint) as parked_changed,
    cast(coalesce(sum(case when _levin_operation = 'parked_removed' then 1 else 0 end), 0) as bigint) as parked_removed
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
) as r
cross join (select count(*) as known from `levin_planner`.`p6f0c2a9e_s1_snapshot` as k) as s;

-- forget the count
delete from `levin_planner`.`p6f0c2a9e_s1_diff_7` where _levin_operation = 'queried';

