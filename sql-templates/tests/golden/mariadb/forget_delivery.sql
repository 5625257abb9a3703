-- forget the delivery (exactly one row)
update `levin_planner`.`p6f0c2a9e_s1_state`
set delivering = null, delivering_table = null, delivering_shape = null, delivering_sent = null, delivering_store = null, delivering_run = null
where generation = 7;

