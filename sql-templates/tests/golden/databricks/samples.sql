-- sample removed (returns rows)
select d._levin_sequence as _levin_sequence, d._levin_changed, d._levin_version
  , d.`id` as k0
  , d._levin_previous.`email` as c0
  , d._levin_previous.`O"Brien's ltv` as c1
  , d._levin_previous.`profile` as c2
from `levin_planner`.`p6f0c2a9e_s1_diff_7` as d
where d._levin_operation = 'removed'
  and d._levin_sequence > 50000
  and d._levin_sequence <= 100000
order by d._levin_sequence;

