-- write the differences
create table "levin_planner"."p6f0c2a9e_s1_diff_7" as
with w as (
select
  cast(case
    when p.part > 1 then 'removed'
    when k."id" is null or (m."id" is not null and k."id" is not null and not coalesce(m."email" = k."email", false)) then 'added'
    else 'changed'
  end
 as varchar(65535)) as _levin_operation,
  case
    when p.part = 3 then '000'
    when ((m."id" is not null and k."id" is not null and not coalesce(m."email" = k."email", false)) and k."email" is not null) then null
    when m."id" is null or k."id" is null then null
    else case when (coalesce(to_varbyte(cast(m."email" as varchar(65535)), 'utf8') <> to_varbyte(cast(k."email" as varchar(65535)), 'utf8'), false) or (m."email" is null and k."email" is not null) or (m."email" is not null and k."email" is null)) then '1' else '0' end
      || case when (coalesce(m."O""Brien's ltv" <> k."O""Brien's ltv", false) or (m."O""Brien's ltv" is null and k."O""Brien's ltv" is not null) or (m."O""Brien's ltv" is not null and k."O""Brien's ltv" is null)) then '1' else '0' end
      || case when (coalesce(case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end <> case when k."profile" is not null then json_serialize_to_varbyte(k."profile") end, false) or (m."profile" is null and k."profile" is not null) or (m."profile" is not null and k."profile" is null)) then '1' else '0' end
  end as _levin_changed,
  cast(null as varchar(65535)) as _levin_version,
  coalesce(m."id", k."id") as "id",
  case when p.part = 1 then m."email" end as "email",
  case when p.part = 1 then m."O""Brien's ltv" end as "O""Brien's ltv",
  case when p.part = 1 then m."profile" end as "profile",
  k."id" as _levin_previous0, k."email" as _levin_previous1, k."O""Brien's ltv" as _levin_previous2, k."profile" as _levin_previous3,
case p.part when 1 then m."email" when 2 then k."email" end as _levin_match0,
  p.part = 1 and (k."id" is null or (m."id" is not null and k."id" is not null and not coalesce(m."email" = k."email", false))) as _levin_claims,
1 = 0 as _levin_doubtful
from (
  select * from (
select * from customers -- all of them;
) as m
  where m."id" is not null
) as m
full join "levin_planner"."p6f0c2a9e_s1_snapshot" as k on m."id" = k."id"
cross join (select 1 as part union all select 2) as p
where (p.part = 1 and m."id" is not null
    or p.part = 2 and k."id" is not null and (m."id" is null or ((m."id" is not null and k."id" is not null and not coalesce(m."email" = k."email", false)) and k."email" is not null))) and (m."id" is null
  or k."id" is null
  or (coalesce(to_varbyte(cast(m."email" as varchar(65535)), 'utf8') <> to_varbyte(cast(k."email" as varchar(65535)), 'utf8'), false) or (m."email" is null and k."email" is not null) or (m."email" is not null and k."email" is null))
  or (coalesce(m."O""Brien's ltv" <> k."O""Brien's ltv", false) or (m."O""Brien's ltv" is null and k."O""Brien's ltv" is not null) or (m."O""Brien's ltv" is not null and k."O""Brien's ltv" is null))
  or (coalesce(case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end <> case when k."profile" is not null then json_serialize_to_varbyte(k."profile") end, false) or (m."profile" is null and k."profile" is not null) or (m."profile" is not null and k."profile" is null))
)
),
f as (
  select case when r."id" is not null then 'parked_' || w._levin_operation else w._levin_operation end as _levin_operation, w._levin_changed, w._levin_version,
    w."id",
    w."email",
    w."O""Brien's ltv",
    w."profile",
    w._levin_previous0, w._levin_previous1, w._levin_previous2, w._levin_previous3, w._levin_match0, w._levin_claims and r."id" is null as _levin_claims, w._levin_doubtful
  from w
  left join "levin_planner"."p6f0c2a9e_s1_rejections" as r on r._levin_parked and r."id" = w."id" and r._levin_operation = w._levin_operation and r._levin_fingerprint = sha2('4f2a' || case when w._levin_operation = 'removed' then 'removed' || coalesce(cast(length(cast(w._levin_match0 as varchar(65535))) as varchar(65535)) || ':' || cast(w._levin_match0 as varchar(65535)), '-') else w._levin_operation || coalesce(sha2(cast(w."email" as varchar(65535)), 256), '-') || coalesce(sha2(cast(w."O""Brien's ltv" as varchar(65535)), 256), '-') || coalesce(sha2(case when w."profile" is null then null when json_size(w."profile") > 65535 then cast(json_size(w."profile") as varchar(65535)) else json_serialize(w."profile") end, 256), '-') end, 256)
),
holders as (
  select "id", "email" as _levin_match0 from "levin_planner"."p6f0c2a9e_s1_snapshot"
),
standing as (
  select h.*
  from holders as h
  left join f as r on r._levin_operation = 'removed' and r."id" = h."id" and r._levin_match0 = h._levin_match0
  where r."id" is null
),
contested as (
  select f._levin_match0 from f where f._levin_claims group by f._levin_match0 having count(*) > 1
),
held as (
  select distinct f."id"
  from f
  join standing as h on h._levin_match0 = f._levin_match0
  where f._levin_claims and not (h."id" = f."id")
),
judged as (
  select f.*,
    case
      when f._levin_operation like 'parked%' or f._levin_operation = 'removed' then null
      when f._levin_match0 is null then 'NULL_MATCH_VALUE'
      when f._levin_claims and (c._levin_match0 is not null or h."id" is not null) then 'DUPLICATE_MATCH_VALUE'
    end as _levin_judgement
  from f
  left join contested as c on c._levin_match0 = f._levin_match0
  left join held as h on h."id" = f."id"
),
arriving as (
  select j."id", j._levin_match0 from judged as j where j._levin_operation <> 'removed' and j._levin_operation not like 'parked%' and j._levin_judgement is null
  union all
  select h."id", h._levin_match0 from standing as h
),
superseded as (
  select distinct r."id", r._levin_match0
  from f as r
  join arriving as a on a._levin_match0 = r._levin_match0
  where r._levin_operation = 'removed' and not r._levin_doubtful and not (a."id" = r."id")
)
select j._levin_operation, j._levin_changed, j._levin_version,
  j."id",
  j."email",
  j."O""Brien's ltv",
  j."profile",
  j._levin_previous0, j._levin_previous1, j._levin_previous2, j._levin_previous3, j._levin_match0,
  case when s."id" is not null then 'SUPERSEDED' else j._levin_judgement end as _levin_claim, row_number() over () as _levin_sequence
from judged as j
left join superseded as s on j._levin_operation = 'removed' and s."id" = j."id" and s._levin_match0 = j._levin_match0;

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known, r.parked_added, r.parked_changed, r.parked_removed,
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from "levin_planner"."p6f0c2a9e_s1_diff_7" where not _levin_operation in ('removed', 'parked_removed') group by "id" having count(*) > 1) as r) as own_duplicates,
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

