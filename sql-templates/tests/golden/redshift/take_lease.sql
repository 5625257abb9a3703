-- take the lease (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set generation = 7,
    checkpoint = 0,
    sync_slug = 'customers-to-crm',
    holder = '{"pid":1}',
    lease_until = cast(getdate() as timestamp with time zone) + interval '60 seconds'
where generation = 6
  and (lease_until is null or lease_until < cast(getdate() as timestamp with time zone));

