-- read the state (returns rows)
select
  project, sync_id, sync_slug, generation, checkpoint, holder,
  cast(extract(epoch from (lease_until - get_current_timestamp())) as double precision) as lease_seconds,
  delivering, delivering_table, delivering_store, delivering_run, delivering_shape,
  due_before, target, definition, queried, doubts, rejections, snapshot_rows
from "levin_planner"."p6f0c2a9e_s1_state";

