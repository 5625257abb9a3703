-- create the audit of runs
create table if not exists "levin_audit"."sync_runs" (
  sync_id bigint,
  sync_run_id bigint,
  primary_key varchar(65535),
  destination varchar(65535),
  model_name varchar(65535),
  error varchar(65535),
  status varchar(65535),
  started_at timestamp with time zone,
  finished_at timestamp with time zone,
  num_planned_add bigint,
  num_planned_change bigint,
  num_planned_remove bigint,
  num_attempted_add bigint,
  num_attempted_change bigint,
  num_attempted_remove bigint,
  num_succeeded_add bigint,
  num_succeeded_change bigint,
  num_succeeded_remove bigint,
  num_failed_add bigint,
  num_failed_change bigint,
  num_failed_remove bigint
);

