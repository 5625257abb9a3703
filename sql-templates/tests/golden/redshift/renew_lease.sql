-- renew the lease (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set lease_until = cast(getdate() as timestamp with time zone) + interval '60 seconds'
where generation = 7 and holder is not null;

