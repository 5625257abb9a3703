-- deliver changed (returns rows)
with waiting as (
  select distinct r."id", r._levin_match0
  from "levin_planner"."p6f0c2a9e_s1_diff_7" as r
  join (
    select "id", "email" as _levin_match0 from "levin_planner"."p6f0c2a9e_s1_snapshot"
    union all
    select "id", "email" as _levin_match0 from "levin_planner"."p6f0c2a9e_s1_doubts"
  ) as h on h."id" = r."id" and h._levin_match0 = r._levin_match0
  where r._levin_operation in ('removed', 'parked_removed') and r._levin_claim is null
)
select d._levin_sequence as _levin_sequence, d._levin_changed, d._levin_version, coalesce(d._levin_claim, case when own."id" is not null or other._levin_match0 is not null then 'MATCH_VALUE_HELD' end) as _levin_claim
  , d."id" as k0
  , d."email" as c0
  , d."O""Brien's ltv" as c1
  , case when d."profile" is not null then json_serialize_to_varbyte(d."profile") end as c2
  , d._levin_previous1 as p0
from "levin_planner"."p6f0c2a9e_s1_diff_7" as d
left join (select distinct w."id" from waiting as w) as own on own."id" = d."id"
left join (select distinct w._levin_match0 from waiting as w) as other on other._levin_match0 = d._levin_match0
where d._levin_operation = 'changed'
order by d._levin_sequence;

