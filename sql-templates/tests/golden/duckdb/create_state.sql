-- create the state
create table if not exists "levin_planner"."p6f0c2a9e_s1_state" (
  project text,
  sync_id bigint,
  sync_slug text,
  generation bigint,
  checkpoint bigint,
  holder text,
  lease_until timestamp with time zone,
  delivering bigint,
  delivering_table text,
  delivering_store text,
  delivering_run bigint,
  delivering_shape text,
  delivering_sent text,
  delivering_numbers text,
  due_before bigint,
  target text,
  definition text,
  queried bigint,
  doubts bigint,
  rejections bigint,
  refused bigint,
  ran_at timestamp with time zone,
  basis bigint,
  parked bigint,
  plans text,
  counted bigint,
  counted_basis bigint
);

-- first state
insert into "levin_planner"."p6f0c2a9e_s1_state"
select '6f0c2a9e', 1, 'customers-to-crm', 0, 0, null, null, null, null, null, null, null, null, null, 0, null, null, null, 0, 0, 0, null, 0, 0, null, null, null
where not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_state");

