-- doubt what may have been sent
insert into `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0`
select f._levin_sequence, 'in_doubt', true, 'INTERRUPTED', 'no answer came'
from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
where ((f._levin_operation = 'changed' and f._levin_sequence between 1 and 100) or (f._levin_operation = 'added' and f._levin_sequence between 201 and 353));

