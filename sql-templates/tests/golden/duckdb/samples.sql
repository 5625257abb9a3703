-- sample removed (returns rows)
select d."rowid" as _levin_sequence, d._levin_changed, d._levin_version
  , d."id" as k0
  , d._levin_previous."email" as c0
  , case when starts_with(cast(d._levin_previous."O""Brien's ltv" as text), '.') or starts_with(cast(d._levin_previous."O""Brien's ltv" as text), '-.') then replace(cast(d._levin_previous."O""Brien's ltv" as text), '.', '0.') else cast(d._levin_previous."O""Brien's ltv" as text) end as c1
  , cast(d._levin_previous."profile" as text) as c2
from "levin_planner"."p6f0c2a9e_s1_diff_7" as d
where d._levin_operation = 'removed'
  and d."rowid" > 50000
  and d."rowid" <= 100000
order by d."rowid";

