-- begin the delivery (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set delivering = 7,
    delivering_table = 'p6f0c2a9e_s1_diff_7',
    delivering_shape = 'full',
    delivering_sent = 'removed,added',
    ran_at = current_timestamp,
    delivering_store = '9a',
    delivering_run = 12,
    delivering_numbers = null,
    due_before = 0,
    basis = 7
where generation = 7;

