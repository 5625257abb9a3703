-- renew the lease (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set lease_until = current_timestamp + interval '60' second
where generation = 7 and holder is not null;

