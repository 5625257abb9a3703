-- deliver changed (returns rows)
select d._levin_sequence as _levin_sequence, d._levin_changed, d._levin_version
  , d."id" as k0
  , d."email" as c0
  , d."O""Brien's ltv" as c1
  , case when d."profile" is not null then json_serialize_to_varbyte(d."profile") end as c2
  , d._levin_previous1 as p0
from "levin_planner"."p6f0c2a9e_s1_diff_7" as d
where d._levin_operation = 'changed'
order by d._levin_sequence;

