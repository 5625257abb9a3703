-- write the definition (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set definition = '{}', target = 'here', due_before = 0, basis = 7
where generation = 7;

