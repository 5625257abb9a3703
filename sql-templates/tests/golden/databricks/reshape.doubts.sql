-- write the doubts in their new shape
create table `levin_planner`.`p6f0c2a9e_s1_doubts_7` tblproperties ('delta.feature.catalogManaged' = 'supported', 'delta.columnMapping.mode' = 'name') as
select m.`email`, m.`city`, s._levin_generation, s._levin_operation, s._levin_version
from (
select * from customers -- all of them;
) as m, `levin_planner`.`p6f0c2a9e_s1_doubts` as s
where 1 = 0
union all
select s.`email`, null, s._levin_generation, s._levin_operation, s._levin_version
from `levin_planner`.`p6f0c2a9e_s1_doubts` as s;

