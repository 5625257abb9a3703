-- doubt what may have been sent
insert into `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0`
select f._levin_sequence, 'in_doubt', true, 'INTERRUPTED', 'the notes of this delivery are lost'
from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
where not exists (
  select 1 from `levin_planner`.`p6f0c2a9e_s1_snapshot` as s
  where s._levin_generation = 7 and s.`id` = f.`id`
)
  and f._levin_operation in ('added', 'changed')
  and (f._levin_operation <> 'removed'
    or exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_snapshot` as s where s.`id` = f.`id`)
    or exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_doubts` as t where t.`id` = f.`id`))
  and f._levin_claim is null;

