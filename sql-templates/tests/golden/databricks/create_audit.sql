-- create the audit of runs
create table if not exists `levin_audit`.`sync_runs` as
select
  cast(null as bigint) as sync_id,
  cast(null as bigint) as sync_run_id,
  cast(null as string) as primary_key,
  cast(null as string) as destination,
  cast(null as string) as model_name,
  cast(null as string) as error,
  cast(null as string) as status,
  cast(null as timestamp) as started_at,
  cast(null as timestamp) as finished_at,
  cast(null as bigint) as num_planned_add,
  cast(null as bigint) as num_planned_change,
  cast(null as bigint) as num_planned_remove,
  cast(null as bigint) as num_attempted_add,
  cast(null as bigint) as num_attempted_change,
  cast(null as bigint) as num_attempted_remove,
  cast(null as bigint) as num_succeeded_add,
  cast(null as bigint) as num_succeeded_change,
  cast(null as bigint) as num_succeeded_remove,
  cast(null as bigint) as num_failed_add,
  cast(null as bigint) as num_failed_change,
  cast(null as bigint) as num_failed_remove
where 1 = 0;

