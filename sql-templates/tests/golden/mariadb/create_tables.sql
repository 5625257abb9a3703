-- drop the old snapshot
drop table if exists `levin_planner`.`p6f0c2a9e_s1_snapshot`;

-- create the snapshot
create table `levin_planner`.`p6f0c2a9e_s1_snapshot` as
select `id`, `email`, `O"Brien's ltv`, `profile`, case when 1 = 0 then 9223372036854775807 else 0 end as _levin_generation
from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m
where 1 = 0;

-- index the keys
alter table `levin_planner`.`p6f0c2a9e_s1_snapshot` add unique (`id`);

-- drop the old doubts
drop table if exists `levin_planner`.`p6f0c2a9e_s1_doubts`;

-- create the doubts
create table `levin_planner`.`p6f0c2a9e_s1_doubts` as
select `id`, `email`, `O"Brien's ltv`, `profile`, case when 1 = 0 then 9223372036854775807 else 0 end as _levin_generation, cast('' as char(16777216)) as _levin_operation, cast('' as char(16777216)) as _levin_version
from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m
where 1 = 0;

-- drop the old rejections
drop table if exists `levin_planner`.`p6f0c2a9e_s1_rejections`;

-- create the rejections
create table `levin_planner`.`p6f0c2a9e_s1_rejections` as
select `id`, case when 1 = 0 then 9223372036854775807 else 0 end as _levin_generation, case when 1 = 0 then 9223372036854775807 else 0 end as _levin_checkpoint,
  cast('' as char(16777216)) as _levin_operation, cast('' as char(16777216)) as _levin_code, cast('' as char(16777216)) as _levin_reason,
  case when 1 = 0 then 9223372036854775807 else 0 end as _levin_attempts, case when 1 = 0 then 9223372036854775807 else 0 end as _levin_rows, case when 1 = 0 then 9223372036854775807 else 0 end as _levin_run,
  case when 1 = 0 then 9223372036854775807 else 0 end as _levin_sequence, cast('' as char(16777216)) as _levin_fingerprint, 1 = 0 as _levin_parked,
  now(6) as _levin_first_at, now(6) as _levin_last_at
from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m
where 1 = 0;

