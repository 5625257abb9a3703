-- drop a leftover
drop table if exists `levin_planner`.`p6f0c2a9e_s1_diff_7`;

-- drop a leftover
drop table if exists `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0`;

