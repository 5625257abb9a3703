-- look at the row (returns rows)
select cast(1 as bigint) as _levin_sequence, case when k.`id` is null then '111' else case when m.`email` is distinct from k.`email` then '1' else '0' end
      || case when m.`O"Brien's ltv` is distinct from k.`O"Brien's ltv` then '1' else '0' end
      || case when m.`profile` is distinct from k.`profile` then '1' else '0' end end as _levin_changed, 'test.4f2a' as _levin_version
  , m.`id` as k0
  , m.`email` as c0
  , m.`O"Brien's ltv` as c1
  , m.`profile` as c2
  , k.`email` as p0
from (
  select r.`id` as `id`, cast('it\'s@example.com' as text) as `email`, r.`O"Brien's ltv` as `O"Brien's ltv`, r.`profile` as `profile`
  from (
select * from customers -- all of them;
  ) as r
  where r.`id` = cast('42' as bigint)
  limit 2
) as m
left join `levin_planner`.`p6f0c2a9e_s1_snapshot` as k on k.`id` = cast('42' as bigint);

