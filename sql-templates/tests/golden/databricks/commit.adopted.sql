-- fence (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set checkpoint = checkpoint + 1, basis = 7,
    delivering = null, delivering_table = null, delivering_shape = null, delivering_sent = null, delivering_store = null, delivering_run = null
where generation = 7 and checkpoint = 0;

-- record the rejections
insert into `levin_planner`.`p6f0c2a9e_s1_rejections` (`id`, _levin_generation, _levin_checkpoint, _levin_operation, _levin_code, _levin_reason, _levin_attempts, _levin_rows, _levin_run, _levin_sequence, _levin_fingerprint, _levin_parked, _levin_first_at, _levin_last_at)
select f.`id`, 7, 1,
'added', o.code, o.reason,
  case when r._levin_run = 12 and r._levin_sequence = f._levin_sequence then r._levin_attempts else
    case when r._levin_parked then 0 else coalesce(r._levin_attempts, 0) end + 1 end, 1, 12, f._levin_sequence,
  case when r._levin_run = 12 and r._levin_sequence = f._levin_sequence then r._levin_fingerprint else '' end,
  case when r._levin_run = 12 and r._levin_sequence = f._levin_sequence then r._levin_parked else 1 = 0 end,
  coalesce(r._levin_first_at, current_timestamp), current_timestamp
from `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0` as o
join `levin_planner`.`p6f0c2a9e_s1_diff_7` as f on o.sequence = f._levin_sequence
left join `levin_planner`.`p6f0c2a9e_s1_rejections` as r on coalesce(cast(r.`id` as string), '') = coalesce(cast(f.`id` as string), '') and (r.`id` is null) = (f.`id` is null)
where o.outcome = 'rejected';

-- forget their older entries
delete from `levin_planner`.`p6f0c2a9e_s1_rejections` as t
where (t._levin_generation < 7 or t._levin_checkpoint < 1)
  and exists (
    select 1 from `levin_planner`.`p6f0c2a9e_s1_rejections` as n
    where n._levin_generation = 7 and n._levin_checkpoint = 1
      and coalesce(cast(n.`id` as string), '') = coalesce(cast(t.`id` as string), '') and (n.`id` is null) = (t.`id` is null)
  );

-- replace older doubts
delete from `levin_planner`.`p6f0c2a9e_s1_doubts` as t
where exists (
  select 1 from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f join `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0` as o on o.sequence = f._levin_sequence
  where o.in_doubt and f.`id` = t.`id`
);

-- write the doubts
insert into `levin_planner`.`p6f0c2a9e_s1_doubts`
select f.`id`, f.`email`,
f.`O"Brien's ltv`,
f.`profile`,

  7, 'added', '7.' || cast(f._levin_sequence as string)
from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f join `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0` as o on o.sequence = f._levin_sequence
where o.in_doubt;

-- empty the snapshot
delete from `levin_planner`.`p6f0c2a9e_s1_snapshot`;

-- put the rows into the snapshot
insert into `levin_planner`.`p6f0c2a9e_s1_snapshot`
select f.`id`, f.`email`, f.`O"Brien's ltv`, f.`profile`, f._levin_generation
from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
where not exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0` as o where o.sequence = f._levin_sequence);

-- count what is left
merge into `levin_planner`.`p6f0c2a9e_s1_state` as t
using (
  select (select count(*) from `levin_planner`.`p6f0c2a9e_s1_doubts`) as doubts,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections`) as rejections,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections` where _levin_fingerprint is not null) as refused,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections` where _levin_parked) as parked
) as c on t.generation = 7
when matched then update set doubts = c.doubts, rejections = c.rejections, refused = c.refused, parked = c.parked;

