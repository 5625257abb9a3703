-- deliver removed (returns rows)
select d._levin_sequence as _levin_sequence, d._levin_changed, d._levin_version
  , d."id" as k0
  , d._levin_previous1 as c0
  , d._levin_previous2 as c1
  , case when d._levin_previous3 is not null then json_serialize_to_varbyte(d._levin_previous3) end as c2
from "levin_planner"."p6f0c2a9e_s1_diff_7" as d
where d._levin_operation = 'removed'
  and d._levin_sequence > 50000
  and d._levin_sequence <= 100000
order by d._levin_sequence;

