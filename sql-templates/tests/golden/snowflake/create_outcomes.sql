-- create the outcomes
create transient table "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as
select cast(0 as bigint) as sequence, cast(null as text) as outcome, 1 = 0 as in_doubt,
  cast(null as text) as code, cast(null as text) as reason
where 1 = 0;

