-- keep the plans (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set plans = '[{"id":"plan_1_"}]'
where generation = 7;

