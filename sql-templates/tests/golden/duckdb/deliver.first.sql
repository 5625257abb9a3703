-- deliver added (returns rows)
select d."rowid" as _levin_sequence
  , d."id" as k0
  , d."email" as c0
  , case when starts_with(cast(d."O""Brien's ltv" as text), '.') or starts_with(cast(d."O""Brien's ltv" as text), '-.') then replace(cast(d."O""Brien's ltv" as text), '.', '0.') else cast(d."O""Brien's ltv" as text) end as c1
  , cast(d."profile" as text) as c2
from "levin_planner"."p6f0c2a9e_s1_diff_7" as d
order by d."rowid";

