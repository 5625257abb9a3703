-- take the lease (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set generation = 7,
    checkpoint = 0,
    sync_slug = 'it\'s',
    holder = '{"pid":1}',
    lease_until = current_timestamp + interval '60' second
where generation = 6;

