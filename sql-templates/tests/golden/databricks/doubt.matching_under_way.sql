-- doubt what may have been sent
insert into `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0`
select f._levin_sequence, 'in_doubt', true, 'INTERRUPTED', 'no answer came'
from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
where ((f._levin_operation = 'removed' and f._levin_sequence between 1 and 7) or (f._levin_operation = 'changed' and f._levin_sequence between 8 and 353))
  and f._levin_claim is null
  and (f._levin_operation = 'removed' or (not exists (
    select 1 from (
    select distinct r.`id`, r._levin_match0
  from `levin_planner`.`p6f0c2a9e_s1_diff_7` as r
  join (
    select `id`, `email` as _levin_match0 from `levin_planner`.`p6f0c2a9e_s1_snapshot`
    union all
    select `id`, `email` as _levin_match0 from `levin_planner`.`p6f0c2a9e_s1_doubts`
  ) as h on h.`id` = r.`id` and h._levin_match0 = r._levin_match0
  where r._levin_operation in ('removed', 'parked_removed') and r._levin_claim is null
    ) as w
    where w.`id` = f.`id`
  ) and not exists (
    select 1 from (
    select distinct r.`id`, r._levin_match0
  from `levin_planner`.`p6f0c2a9e_s1_diff_7` as r
  join (
    select `id`, `email` as _levin_match0 from `levin_planner`.`p6f0c2a9e_s1_snapshot`
    union all
    select `id`, `email` as _levin_match0 from `levin_planner`.`p6f0c2a9e_s1_doubts`
  ) as h on h.`id` = r.`id` and h._levin_match0 = r._levin_match0
  where r._levin_operation in ('removed', 'parked_removed') and r._levin_claim is null
    ) as w
    where w._levin_match0 = f._levin_match0
  )));

