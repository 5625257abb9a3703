-- sample the keys set aside (returns rows)
select a.`tenant` as k0, a.`id` as k1, _levin_rows, _levin_code
from `levin_planner`.`p6f0c2a9e_s1_set_aside_7` as a
order by _levin_rows desc
limit 5;

