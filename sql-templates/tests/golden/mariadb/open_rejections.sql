-- open rejections (returns rows)
select r.`tenant` as k0, r.`id` as k1, 
  _levin_operation, _levin_code, _levin_reason, _levin_attempts, _levin_rows, _levin_run, _levin_sequence, _levin_parked, _levin_first_at, _levin_last_at
from `levin_planner`.`p6f0c2a9e_s1_rejections` as r
order by _levin_last_at desc, _levin_sequence, k0, k1
limit 100;

