-- create the audit of runs
create table if not exists `levin_audit`.`sync_runs` as
select
  case when 1 = 0 then 9223372036854775807 else null end as sync_id,
  case when 1 = 0 then 9223372036854775807 else null end as sync_run_id,
  cast(null as char(16777216)) as primary_key,
  cast(null as char(16777216)) as destination,
  cast(null as char(16777216)) as model_name,
  cast(null as char(16777216)) as error,
  cast(null as char(16777216)) as status,
  cast(null as datetime(6)) as started_at,
  cast(null as datetime(6)) as finished_at,
  case when 1 = 0 then 9223372036854775807 else null end as num_planned_add,
  case when 1 = 0 then 9223372036854775807 else null end as num_planned_change,
  case when 1 = 0 then 9223372036854775807 else null end as num_planned_remove,
  case when 1 = 0 then 9223372036854775807 else null end as num_attempted_add,
  case when 1 = 0 then 9223372036854775807 else null end as num_attempted_change,
  case when 1 = 0 then 9223372036854775807 else null end as num_attempted_remove,
  case when 1 = 0 then 9223372036854775807 else null end as num_succeeded_add,
  case when 1 = 0 then 9223372036854775807 else null end as num_succeeded_change,
  case when 1 = 0 then 9223372036854775807 else null end as num_succeeded_remove,
  case when 1 = 0 then 9223372036854775807 else null end as num_failed_add,
  case when 1 = 0 then 9223372036854775807 else null end as num_failed_change,
  case when 1 = 0 then 9223372036854775807 else null end as num_failed_remove
where 1 = 0;

