-- write the differences
create table "levin_planner"."p6f0c2a9e_s1_diff_7" as
select
  cast(case
    when m."id" is null then 'removed'
    when k."id" is null then 'added'
    else 'changed'
  end
 as varchar(65535)) as _levin_operation,
  case
    when m."id" is null or k."id" is null then null
    else case when (coalesce(to_varbyte(cast(m."email" as varchar(65535)), 'utf8') <> to_varbyte(cast(k."email" as varchar(65535)), 'utf8'), false) or (m."email" is null and k."email" is not null) or (m."email" is not null and k."email" is null)) then '1' else '0' end
      || case when (coalesce(m."O""Brien's ltv" <> k."O""Brien's ltv", false) or (m."O""Brien's ltv" is null and k."O""Brien's ltv" is not null) or (m."O""Brien's ltv" is not null and k."O""Brien's ltv" is null)) then '1' else '0' end
      || case when (coalesce(case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end <> case when k."profile" is not null then json_serialize_to_varbyte(k."profile") end, false) or (m."profile" is null and k."profile" is not null) or (m."profile" is not null and k."profile" is null)) then '1' else '0' end
  end as _levin_changed,
  cast(null as varchar(65535)) as _levin_version,
  coalesce(m."id", k."id") as "id",
  m."email",
  m."O""Brien's ltv",
  m."profile",
  k."id" as _levin_previous0, k."email" as _levin_previous1, k."O""Brien's ltv" as _levin_previous2, k."profile" as _levin_previous3, row_number() over () as _levin_sequence
from (
  select * from (
select * from customers -- all of them;
) as m
  where m."id" is not null
) as m
full join "levin_planner"."p6f0c2a9e_s1_snapshot" as k on m."id" = k."id"
where (m."id" is null
  or k."id" is null
  or (coalesce(to_varbyte(cast(m."email" as varchar(65535)), 'utf8') <> to_varbyte(cast(k."email" as varchar(65535)), 'utf8'), false) or (m."email" is null and k."email" is not null) or (m."email" is not null and k."email" is null))
  or (coalesce(m."O""Brien's ltv" <> k."O""Brien's ltv", false) or (m."O""Brien's ltv" is null and k."O""Brien's ltv" is not null) or (m."O""Brien's ltv" is not null and k."O""Brien's ltv" is null))
  or (coalesce(case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end <> case when k."profile" is not null then json_serialize_to_varbyte(k."profile") end, false) or (m."profile" is null and k."profile" is not null) or (m."profile" is not null and k."profile" is null))
);

-- park rows that were refused too often
update "levin_planner"."p6f0c2a9e_s1_diff_7" as f
set _levin_operation = 'parked_' || f._levin_operation
where exists (select 1 from "levin_planner"."p6f0c2a9e_s1_rejections" as r where r._levin_parked and r."id" = f."id" and r._levin_operation = f._levin_operation and r._levin_fingerprint = sha2('4f2a' || case when f._levin_operation = 'removed' then 'removed' else f._levin_operation || coalesce(sha2(cast(f."email" as varchar(65535)), 256), '-') || coalesce(sha2(cast(f."O""Brien's ltv" as varchar(65535)), 256), '-') || coalesce(sha2(case when f."profile" is null then null when json_size(f."profile") > 65535 then cast(json_size(f."profile") as varchar(65535)) else json_serialize(f."profile") end, 256), '-') end, 256));

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known, r.parked_added, r.parked_changed, r.parked_removed,
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from "levin_planner"."p6f0c2a9e_s1_diff_7" group by "id" having count(*) > 1) as r) as own_duplicates,
  0 as longest_key
from (
  select count(*) as queried, cast(coalesce(sum(case when m."id" is null then 1 else 0 end), 0) as bigint) as null_keys
  from (
select * from customers -- all of them;
) as m
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
  from "levin_planner"."p6f0c2a9e_s1_diff_7"
) as r
cross join (select count(*) as known from "levin_planner"."p6f0c2a9e_s1_snapshot" as k) as s;

