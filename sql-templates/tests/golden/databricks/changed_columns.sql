-- count the changed columns (returns rows)
select cast(coalesce(sum(case when substring(_levin_changed, 1, 1) = '1' then 1 else 0 end), 0) as bigint) as n0, cast(coalesce(sum(case when substring(_levin_changed, 2, 1) = '1' then 1 else 0 end), 0) as bigint) as n1, cast(coalesce(sum(case when substring(_levin_changed, 3, 1) = '1' then 1 else 0 end), 0) as bigint) as n2
from `levin_planner`.`p6f0c2a9e_s1_diff_7`
where _levin_operation = 'changed';

