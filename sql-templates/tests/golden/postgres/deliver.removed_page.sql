-- deliver removed (returns rows)
select d."ctid" as _levin_sequence, d._levin_changed, d._levin_version
  , d."id" as k0
  , (d._levin_previous)."email" as c0
  , cast((d._levin_previous)."O""Brien's ltv" as text) as c1
  , cast((d._levin_previous)."profile" as text) as c2
from "levin_planner"."p6f0c2a9e_s1_diff_7" as d
where d._levin_operation = 'removed'
  and d."ctid" > '(0,50000)'::tid
  and d."ctid" <= '(1,34464)'::tid;

