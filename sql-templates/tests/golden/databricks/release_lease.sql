-- release the lease (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set lease_until = null, holder = null, counted = 990, counted_basis = basis, queried = 1000, ran_at = current_timestamp
where generation = 7;

