-- write the snapshot in their new shape
create table `levin_planner`.`p6f0c2a9e_s1_snapshot_7` tblproperties ('delta.feature.catalogManaged' = 'supported', 'delta.columnMapping.mode' = 'name') as
select m.`id`, m.`email`, m.`city`, s._levin_generation
from (
select * from customers -- all of them;
) as m, `levin_planner`.`p6f0c2a9e_s1_snapshot` as s
where 1 = 0
union all
select cast(s.`id` as bigint), s.`email`, null, case when s.`city` is not null then 0 else s._levin_generation end
from `levin_planner`.`p6f0c2a9e_s1_snapshot` as s;

-- keys stay one to one (returns rows)
select count(*) as found, count(distinct `id`) as kept
from `levin_planner`.`p6f0c2a9e_s1_snapshot_7`;

