-- begin the delivery (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set delivering = 7,
    delivering_table = 'p6f0c2a9e_s1_diff_7',
    delivering_shape = 'full',
    delivering_sent = 'removed,added',
    ran_at = clock_timestamp(),
    delivering_store = '9a',
    delivering_run = 12,
    delivering_numbers = (
    select pg_relation_filenode(c.oid)::text
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'levin_planner' and c.relname = 'p6f0c2a9e_s1_diff_7'
  ),
    due_before = 0,
    basis = 7
where generation = 7;

