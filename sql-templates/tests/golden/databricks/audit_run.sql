-- write the audit of the run
insert into `levin_audit`.`sync_runs`
select 1, 12, 'id', 'postgres', 'customers', null, 'succeeded',
  cast('2026-11-21T09:00:00Z' as timestamp), cast('2026-11-21T09:00:05Z' as timestamp), 1, 2, 3, 1, 2, 3, 1, 2, 2, 0, 0, 1;

