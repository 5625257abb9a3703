-- drop the old shape
drop table if exists `levin_planner`.`p6f0c2a9e_s1_snapshot`;

-- put the new shape in its place
alter table `levin_planner`.`p6f0c2a9e_s1_snapshot_7` rename to `levin_planner`.`p6f0c2a9e_s1_snapshot`;

