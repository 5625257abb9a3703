-- read the state (returns rows)
select
  project, sync_id, sync_slug, generation, checkpoint, holder,
  cast(unix_micros(lease_until) - unix_micros(current_timestamp) as double) / 1000000 as lease_seconds,
  delivering, delivering_table, delivering_store, delivering_run, delivering_shape, delivering_sent,
  1 = 0 as delivering_renumbered,
  due_before, target, definition, queried, doubts, rejections, refused,
  -cast(unix_micros(ran_at) - unix_micros(current_timestamp) as double) / 1000000 as idle_seconds, basis, parked, plans,
  case when counted_basis = basis then counted end as counted
from `levin_planner`.`p6f0c2a9e_s1_state`;

