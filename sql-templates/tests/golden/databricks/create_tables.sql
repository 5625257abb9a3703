-- drop the old snapshot
drop table if exists `levin_planner`.`p6f0c2a9e_s1_snapshot`;

-- create the snapshot
create table `levin_planner`.`p6f0c2a9e_s1_snapshot` tblproperties ('delta.feature.catalogManaged' = 'supported', 'delta.columnMapping.mode' = 'name') as
select `id`, `email`, `O"Brien's ltv`, `profile`, cast(0 as bigint) as _levin_generation
from (
select * from customers -- all of them;
) as m
where 1 = 0;

-- drop the old doubts
drop table if exists `levin_planner`.`p6f0c2a9e_s1_doubts`;

-- create the doubts
create table `levin_planner`.`p6f0c2a9e_s1_doubts` tblproperties ('delta.feature.catalogManaged' = 'supported', 'delta.columnMapping.mode' = 'name') as
select `id`, `email`, `O"Brien's ltv`, `profile`, cast(0 as bigint) as _levin_generation, cast('' as string) as _levin_operation, cast('' as string) as _levin_version
from (
select * from customers -- all of them;
) as m
where 1 = 0;

-- drop the old rejections
drop table if exists `levin_planner`.`p6f0c2a9e_s1_rejections`;

-- create the rejections
create table `levin_planner`.`p6f0c2a9e_s1_rejections` tblproperties ('delta.feature.catalogManaged' = 'supported', 'delta.columnMapping.mode' = 'name') as
select `id`, cast(0 as bigint) as _levin_generation, cast(0 as bigint) as _levin_checkpoint,
  cast('' as string) as _levin_operation, cast('' as string) as _levin_code, cast('' as string) as _levin_reason,
  cast(0 as bigint) as _levin_attempts, cast(0 as bigint) as _levin_rows, cast(0 as bigint) as _levin_run,
  cast(0 as bigint) as _levin_sequence, cast('' as string) as _levin_fingerprint, 1 = 0 as _levin_parked,
  current_timestamp as _levin_first_at, current_timestamp as _levin_last_at
from (
select * from customers -- all of them;
) as m
where 1 = 0;

