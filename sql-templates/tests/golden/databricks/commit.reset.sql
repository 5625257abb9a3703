-- fence (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set checkpoint = checkpoint + 1, basis = 7,
    delivering = null, delivering_table = null, delivering_shape = null, delivering_sent = null, delivering_store = null, delivering_run = null
where generation = 7 and checkpoint = 0;

-- forget rejections
delete from `levin_planner`.`p6f0c2a9e_s1_rejections`;

-- forget doubts
delete from `levin_planner`.`p6f0c2a9e_s1_doubts`;

-- record the keys set aside
insert into `levin_planner`.`p6f0c2a9e_s1_rejections` (`tenant`, `id`, _levin_generation, _levin_checkpoint, _levin_operation, _levin_code, _levin_reason, _levin_attempts, _levin_rows, _levin_run, _levin_sequence, _levin_fingerprint, _levin_parked, _levin_first_at, _levin_last_at)
select a.`tenant`, a.`id`, 7, 1,
  'added', a._levin_code, 'rows with this key: ' || cast(a._levin_rows as string),
  0, a._levin_rows, 12, 0, null, 1 = 0,
  coalesce(r._levin_first_at, current_timestamp), current_timestamp
from `levin_planner`.`p6f0c2a9e_s1_set_aside_7` as a
left join `levin_planner`.`p6f0c2a9e_s1_rejections` as r on coalesce(cast(r.`tenant` as string), '') = coalesce(cast(a.`tenant` as string), '') and (r.`tenant` is null) = (a.`tenant` is null) and coalesce(cast(r.`id` as string), '') = coalesce(cast(a.`id` as string), '') and (r.`id` is null) = (a.`id` is null);

-- forget their older entries
delete from `levin_planner`.`p6f0c2a9e_s1_rejections` as t
where (t._levin_generation < 7 or t._levin_checkpoint < 1)
  and exists (
    select 1 from `levin_planner`.`p6f0c2a9e_s1_rejections` as n
    where n._levin_generation = 7 and n._levin_checkpoint = 1
      and coalesce(cast(n.`tenant` as string), '') = coalesce(cast(t.`tenant` as string), '') and (n.`tenant` is null) = (t.`tenant` is null) and coalesce(cast(n.`id` as string), '') = coalesce(cast(t.`id` as string), '') and (n.`id` is null) = (t.`id` is null)
  );

-- empty the snapshot
delete from `levin_planner`.`p6f0c2a9e_s1_snapshot` as t
where not exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_set_aside_7` as a where a.`tenant` = t.`tenant` and a.`id` = t.`id`);

-- put the rows into the snapshot
insert into `levin_planner`.`p6f0c2a9e_s1_snapshot`
select f.`tenant`, f.`id`, f.`email`, f._levin_generation
from `levin_planner`.`p6f0c2a9e_s1_diff_7` as f;

-- count what is left
merge into `levin_planner`.`p6f0c2a9e_s1_state` as t
using (
  select (select count(*) from `levin_planner`.`p6f0c2a9e_s1_doubts`) as doubts,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections`) as rejections,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections` where _levin_fingerprint is not null) as refused,
    (select count(*) from `levin_planner`.`p6f0c2a9e_s1_rejections` where _levin_parked) as parked
) as c on t.generation = 7
when matched then update set doubts = c.doubts, rejections = c.rejections, refused = c.refused, parked = c.parked;

