-- fence (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set checkpoint = checkpoint + 1, basis = 7
where generation = 7 and checkpoint = 3;

-- close accepted rejections
merge into `levin_planner`.`p6f0c2a9e_s1_rejections` as t
using (
  select distinct f.`id` from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
  where ((f._levin_operation = 'removed' and f._levin_sequence between 1 and 7) or (f._levin_operation = 'changed' and f._levin_sequence between 8 and 353))
) as f on not (t._levin_generation = 7 and t._levin_checkpoint = 4)
  and coalesce(cast(f.`id` as string), '') = coalesce(cast(t.`id` as string), '') and (f.`id` is null) = (t.`id` is null)
when matched then delete;

-- take accepted rows out of the snapshot
merge into `levin_planner`.`p6f0c2a9e_s1_snapshot` as t
using (
  select distinct f.`id` from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
  where ((f._levin_operation = 'removed' and f._levin_sequence between 1 and 7) or (f._levin_operation = 'changed' and f._levin_sequence between 8 and 353))
) as f on f.`id` = t.`id`
when matched then delete;

-- put accepted rows into the snapshot
insert into `levin_planner`.`p6f0c2a9e_s1_snapshot`
select f.`id`, f.`email`, f.`O"Brien's ltv`, f.`profile`, 7
from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
where ((f._levin_operation = 'removed' and f._levin_sequence between 1 and 7) or (f._levin_operation = 'changed' and f._levin_sequence between 8 and 353))
  and f._levin_operation <> 'removed';

-- count what is left
merge into `levin_planner`.`p6f0c2a9e_s1_state` as t
using (
  select (select count(*) from `levin_planner`.`p6f0c2a9e_s1_doubts`) as doubts,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections`) as rejections,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections` where _levin_fingerprint is not null) as refused,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections` where _levin_parked) as parked
) as c on t.generation = 7
when matched then update set doubts = c.doubts, rejections = c.rejections, refused = c.refused, parked = c.parked,
  lease_until = current_timestamp + interval '60' second;

