-- create the outcomes
create table "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as
select cast(0 as bigint) as sequence, cast(null as varchar(65535)) as outcome, 1 = 0 as in_doubt,
  cast(null as varchar(65535)) as code, cast(null as varchar(65535)) as reason
where 1 = 0;

