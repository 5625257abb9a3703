-- create the outcomes
create table `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0` tblproperties ('delta.feature.catalogManaged' = 'supported', 'delta.columnMapping.mode' = 'name') as
select cast(0 as bigint) as sequence, cast(null as string) as outcome, 1 = 0 as in_doubt,
  cast(null as string) as code, cast(null as string) as reason
where 1 = 0;

