-- stage the model
create table "levin_planner"."p6f0c2a9e_s1_model_7" as
select "id", "email", "O""Brien's ltv", "profile"
from (
select * from customers -- all of them;
) as m;

-- set keys aside
create table "levin_planner"."p6f0c2a9e_s1_set_aside_7" as
select "id", count(*) as _levin_rows,
  case when m."id" is null then 'NULL_PRIMARY_KEY' else 'DUPLICATE_PRIMARY_KEY' end as _levin_code
from "levin_planner"."p6f0c2a9e_s1_model_7" as m
group by "id"
having count(*) > 1 or m."id" is null;

-- write the differences
create table "levin_planner"."p6f0c2a9e_s1_diff_7" as
select
  cast(case
    when m."id" is null then 'removed'
    when k."id" is null or not k._levin_accepted or k._levin_sent <> 'changed' or k._levin_generation < 7 then 'added'
    else 'changed'
  end
 as varchar(65535)) as _levin_operation,
  case
    when m."id" is null or k."id" is null then null
    when k._levin_version is not null then '111'
    when k._levin_generation < 7 then '111'
    else case when (coalesce(to_varbyte(cast(m."email" as varchar(65535)), 'utf8') <> to_varbyte(cast(k."email" as varchar(65535)), 'utf8'), false) or (m."email" is null and k."email" is not null) or (m."email" is not null and k."email" is null)) then '1' else '0' end
      || case when (coalesce(m."O""Brien's ltv" <> k."O""Brien's ltv", false) or (m."O""Brien's ltv" is null and k."O""Brien's ltv" is not null) or (m."O""Brien's ltv" is not null and k."O""Brien's ltv" is null)) then '1' else '0' end
      || case when (coalesce(case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end <> case when k."profile" is not null then json_serialize_to_varbyte(k."profile") end, false) or (m."profile" is null and k."profile" is not null) or (m."profile" is not null and k."profile" is null)) then '1' else '0' end
  end as _levin_changed,
  case
    when m."id" is null and k._levin_sent = 'removed' then k._levin_version
    when m."id" is not null
      and (k._levin_sent = 'added' or (k._levin_sent = 'changed' and k._levin_accepted and k._levin_generation >= 7))
      and not ((coalesce(to_varbyte(cast(m."email" as varchar(65535)), 'utf8') <> to_varbyte(cast(k._levin_doubt1 as varchar(65535)), 'utf8'), false) or (m."email" is null and k._levin_doubt1 is not null) or (m."email" is not null and k._levin_doubt1 is null)))
      and not ((coalesce(m."O""Brien's ltv" <> k._levin_doubt2, false) or (m."O""Brien's ltv" is null and k._levin_doubt2 is not null) or (m."O""Brien's ltv" is not null and k._levin_doubt2 is null)))
      and not ((coalesce(case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end <> case when k._levin_doubt3 is not null then json_serialize_to_varbyte(k._levin_doubt3) end, false) or (m."profile" is null and k._levin_doubt3 is not null) or (m."profile" is not null and k._levin_doubt3 is null)))
      then k._levin_version
  end as _levin_version,
  coalesce(m."id", k."id") as "id",
  m."email",
  m."O""Brien's ltv",
  m."profile",
  k."id" as _levin_previous0, k."email" as _levin_previous1, k."O""Brien's ltv" as _levin_previous2, k."profile" as _levin_previous3, row_number() over () as _levin_sequence
from (
  select * from "levin_planner"."p6f0c2a9e_s1_model_7" as m
  where m."id" is not null
    and not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_set_aside_7" as a where a."id" = m."id")
) as m
full join (
  select s.*, true as _levin_accepted, d._levin_operation as _levin_sent, d._levin_version, d."id" as _levin_doubt0, d."email" as _levin_doubt1, d."O""Brien's ltv" as _levin_doubt2, d."profile" as _levin_doubt3
  from "levin_planner"."p6f0c2a9e_s1_snapshot" as s
  left join "levin_planner"."p6f0c2a9e_s1_doubts" as d on d."id" = s."id"
  where not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_set_aside_7" as a where a."id" = s."id")
  union all
  select d."id", d."email", d."O""Brien's ltv", d."profile", d._levin_generation, false, d._levin_operation, d._levin_version, d."id" as _levin_doubt0, d."email" as _levin_doubt1, d."O""Brien's ltv" as _levin_doubt2, d."profile" as _levin_doubt3
  from "levin_planner"."p6f0c2a9e_s1_doubts" as d
  where not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_snapshot" as s where s."id" = d."id")
    and not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_set_aside_7" as a where a."id" = d."id")
) as k on m."id" = k."id"
where (m."id" is null
  or k."id" is null
  or k._levin_version is not null
  or k._levin_generation < 7
  or (coalesce(to_varbyte(cast(m."email" as varchar(65535)), 'utf8') <> to_varbyte(cast(k."email" as varchar(65535)), 'utf8'), false) or (m."email" is null and k."email" is not null) or (m."email" is not null and k."email" is null))
  or (coalesce(m."O""Brien's ltv" <> k."O""Brien's ltv", false) or (m."O""Brien's ltv" is null and k."O""Brien's ltv" is not null) or (m."O""Brien's ltv" is not null and k."O""Brien's ltv" is null))
  or (coalesce(case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end <> case when k."profile" is not null then json_serialize_to_varbyte(k."profile") end, false) or (m."profile" is null and k."profile" is not null) or (m."profile" is not null and k."profile" is null))
);

-- count (returns rows)
select q.queried, q.null_keys, a.duplicate_key_rows, r.added, r.changed, r.removed, s.known,
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from "levin_planner"."p6f0c2a9e_s1_diff_7" group by "id" having count(*) > 1) as r) as own_duplicates,
  0 as longest_key
from (
  select count(*) as queried, cast(coalesce(sum(case when m."id" is null then 1 else 0 end), 0) as bigint) as null_keys
  from "levin_planner"."p6f0c2a9e_s1_model_7" as m
) as q
cross join (
  select
    cast(coalesce(sum(case when _levin_code = 'DUPLICATE_PRIMARY_KEY' then _levin_rows else 0 end), 0) as bigint) as duplicate_key_rows
  from "levin_planner"."p6f0c2a9e_s1_set_aside_7"
) as a
cross join (
  select
    cast(coalesce(sum(case when _levin_operation = 'added' then 1 else 0 end), 0) as bigint) as added,
    cast(coalesce(sum(case when _levin_operation = 'added' and _levin_changed is null then 1 else 0 end), 0) as bigint) as new_keys,
    cast(coalesce(sum(case when _levin_operation = 'changed' then 1 else 0 end), 0) as bigint) as changed,
    cast(coalesce(sum(case when _levin_operation = 'removed' and _levin_changed is null then 1 else 0 end), 0) as bigint) as gone,
    cast(coalesce(sum(case when _levin_operation = 'removed' then 1 else 0 end), 0) as bigint) as removed
  from "levin_planner"."p6f0c2a9e_s1_diff_7"
) as r
cross join (select count(*) as known from (
  select s.*, true as _levin_accepted, d._levin_operation as _levin_sent, d._levin_version, d."id" as _levin_doubt0, d."email" as _levin_doubt1, d."O""Brien's ltv" as _levin_doubt2, d."profile" as _levin_doubt3
  from "levin_planner"."p6f0c2a9e_s1_snapshot" as s
  left join "levin_planner"."p6f0c2a9e_s1_doubts" as d on d."id" = s."id"
  where not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_set_aside_7" as a where a."id" = s."id")
  union all
  select d."id", d."email", d."O""Brien's ltv", d."profile", d._levin_generation, false, d._levin_operation, d._levin_version, d."id" as _levin_doubt0, d."email" as _levin_doubt1, d."O""Brien's ltv" as _levin_doubt2, d."profile" as _levin_doubt3
  from "levin_planner"."p6f0c2a9e_s1_doubts" as d
  where not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_snapshot" as s where s."id" = d."id")
    and not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_set_aside_7" as a where a."id" = d."id")
) as k) as s;

-- drop the staged model
drop table "levin_planner"."p6f0c2a9e_s1_model_7";

