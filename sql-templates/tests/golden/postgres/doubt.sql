-- doubt what may have been sent
insert into "levin_planner"."p6f0c2a9e_s1_outcomes_7_0"
select ('x' || encode(tidsend(f."ctid"), 'hex'))::bit(48)::bigint, 'in_doubt', true, 'INTERRUPTED', 'no answer came'
from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
where ((f._levin_operation = 'changed' and f."ctid" between '(0,1)'::tid and '(0,100)'::tid) or (f._levin_operation = 'added' and f."ctid" between '(0,201)'::tid and '(0,353)'::tid));

