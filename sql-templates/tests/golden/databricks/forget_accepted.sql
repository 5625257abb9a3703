-- forget what was accepted
delete from `levin_planner`.`p6f0c2a9e_s1_snapshot`;

-- forget what was in doubt
delete from `levin_planner`.`p6f0c2a9e_s1_doubts`;

-- nothing is in doubt (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set doubts = 0
where generation = 7;

