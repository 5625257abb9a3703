-- read the state (returns rows)
select
  project, sync_id, sync_slug, generation, checkpoint, holder,
  cast(extract(epoch from (lease_until - clock_timestamp())) as double precision) as lease_seconds,
  delivering, delivering_table, delivering_store, delivering_run, delivering_shape, delivering_sent,
  coalesce(delivering_numbers <> (
    select pg_relation_filenode(c.oid)::text
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'levin_planner' and c.relname = delivering_table
  ), false) as delivering_renumbered,
  due_before, target, definition, queried, doubts, rejections, refused,
  -cast(extract(epoch from (ran_at - clock_timestamp())) as double precision) as idle_seconds, basis, parked, plans,
  case when counted_basis = basis then counted end as counted
from "levin_planner"."p6f0c2a9e_s1_state";

