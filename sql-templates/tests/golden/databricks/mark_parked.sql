-- mark rejections
update `levin_planner`.`p6f0c2a9e_s1_rejections`
set _levin_parked = 1 = 1
where not _levin_parked and _levin_fingerprint <> ''
  and `tenant` = cast('acme' as text)
  and `id` = cast('42' as bigint);

-- count what is parked (exactly one row)
merge into `levin_planner`.`p6f0c2a9e_s1_state` as t
using (
  select count(*) as parked from `levin_planner`.`p6f0c2a9e_s1_rejections` where _levin_parked
) as c on t.generation = 7
when matched then update set parked = c.parked, basis = 7;

