-- write the differences
create transient table "levin_planner"."p6f0c2a9e_s1_diff_7" as
select
  cast(case
    when m."id" is null then 'removed'
    when k."id" is null then 'added'
    else 'changed'
  end
 as text) as _levin_operation,
  case
    when m."id" is null or k."id" is null then null
    else case when m."email" is distinct from k."email" then '1' else '0' end
      || case when m."O""Brien's ltv" is distinct from k."O""Brien's ltv" then '1' else '0' end
      || case when to_json(m."profile") is distinct from to_json(k."profile") then '1' else '0' end
  end as _levin_changed,
  cast(null as text) as _levin_version,
  coalesce(m."id", k."id") as "id",
  m."email",
  m."O""Brien's ltv",
  m."profile",
  k."id" as _levin_previous0, k."email" as _levin_previous1, k."O""Brien's ltv" as _levin_previous2, k."profile" as _levin_previous3, row_number() over (order by null) as _levin_sequence
from (
  select * from (
select * from customers -- all of them;
) as m
  where m."id" is not null
) as m
full join "levin_planner"."p6f0c2a9e_s1_snapshot" as k on m."id" = k."id"
where (m."id" is null
  or k."id" is null
  or m."email" is distinct from k."email"
  or m."O""Brien's ltv" is distinct from k."O""Brien's ltv"
  or to_json(m."profile") is distinct from to_json(k."profile")
)
union all
select 'queried', cast(count(*) as text), cast(coalesce(sum(case when m."id" is null then 1 else 0 end), 0) as text),
  null,
  null,
  null,
  null,
null, null, null, null, 0
from (
select * from customers -- all of them;
) as m;

-- park rows that were refused too often
update "levin_planner"."p6f0c2a9e_s1_diff_7" as f
set _levin_operation = 'parked_' || f._levin_operation
where exists (select 1 from "levin_planner"."p6f0c2a9e_s1_rejections" as r where r._levin_parked and r."id" = f."id" and r._levin_operation = f._levin_operation and r._levin_fingerprint = sha2('4f2a' || case when f._levin_operation = 'removed' then 'removed' else f._levin_operation || coalesce(cast(length(cast(f."email" as text)) as text) || ':' || cast(f."email" as text), '-') || coalesce(cast(length(cast(f."O""Brien's ltv" as text)) as text) || ':' || cast(f."O""Brien's ltv" as text), '-') || coalesce(cast(length(cast(f."profile" as text)) as text) || ':' || cast(f."profile" as text), '-') end, 256));

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known, r.parked_added, r.parked_changed, r.parked_removed,
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from "levin_planner"."p6f0c2a9e_s1_diff_7" group by "id" having count(*) > 1) as r) as own_duplicates,
  0 as longest_key
from (
  select cast(_levin_changed as bigint) as queried, cast(_levin_version as bigint) as null_keys
  from "levin_planner"."p6f0c2a9e_s1_diff_7"
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
  from "levin_planner"."p6f0c2a9e_s1_diff_7"
) as r
cross join (select count(*) as known from "levin_planner"."p6f0c2a9e_s1_snapshot" as k) as s;

-- forget the count
delete from "levin_planner"."p6f0c2a9e_s1_diff_7" where _levin_operation = 'queried';

