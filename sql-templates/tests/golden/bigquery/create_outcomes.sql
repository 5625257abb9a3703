-- create the outcomes
create table `levin_planner`.`p6f0c2a9e_s1_outcomes_7_0` as
select cast(0 as int64) as sequence, cast(null as string) as outcome, 1 = 0 as in_doubt,
  cast(null as string) as code, cast(null as string) as reason
from (select 1 as one) as nothing
where false;

