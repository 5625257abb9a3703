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

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known,
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
    cast(coalesce(sum(case when _levin_operation = 'added' then 1 else 0 end), 0) as bigint) as added,
    cast(coalesce(sum(case when _levin_operation = 'added' and _levin_changed is null then 1 else 0 end), 0) as bigint) as new_keys,
    cast(coalesce(sum(case when _levin_operation = 'changed' then 1 else 0 end), 0) as bigint) as changed,
    cast(coalesce(sum(case when _levin_operation = 'removed' and _levin_changed is null then 1 else 0 end), 0) as bigint) as gone,
    cast(coalesce(sum(case when _levin_operation = 'removed' then 1 else 0 end), 0) as bigint) as removed
  from "levin_planner"."p6f0c2a9e_s1_diff_7"
) as r
cross join (select cast(3000000 as bigint) as known) as s;

