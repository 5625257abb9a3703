-- deliver added (returns rows)
select d."ctid" as _levin_sequence
  , d."id" as k0
  , d."email" as c0
  , cast(d."O""Brien's ltv" as text) as c1
  , cast(d."profile" as text) as c2
from "levin_planner"."p6f0c2a9e_s1_diff_7" as d;

