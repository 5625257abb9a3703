-- create the outcomes
create table `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0` as
select case when 1 = 0 then 9223372036854775807 else 0 end as sequence, cast(null as char(16777216)) as outcome, 1 = 0 as in_doubt,
  cast(null as char(16777216)) as code, cast(null as char(16777216)) as reason
where 1 = 0;

