-- look at the row (returns rows)
select cast(1 as bigint) as _levin_sequence, case when k."id" is null then '111' else case when (coalesce(to_varbyte(cast(m."email" as varchar(65535)), 'utf8') <> to_varbyte(cast(k."email" as varchar(65535)), 'utf8'), false) or (m."email" is null and k."email" is not null) or (m."email" is not null and k."email" is null)) then '1' else '0' end
      || case when (coalesce(m."O""Brien's ltv" <> k."O""Brien's ltv", false) or (m."O""Brien's ltv" is null and k."O""Brien's ltv" is not null) or (m."O""Brien's ltv" is not null and k."O""Brien's ltv" is null)) then '1' else '0' end
      || case when (coalesce(case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end <> case when k."profile" is not null then json_serialize_to_varbyte(k."profile") end, false) or (m."profile" is null and k."profile" is not null) or (m."profile" is not null and k."profile" is null)) then '1' else '0' end end as _levin_changed, 'test.4f2a' as _levin_version
  , m."id" as k0
  , m."email" as c0
  , m."O""Brien's ltv" as c1
  , case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end as c2
  , k."email" as p0
from (
  select r."id" as "id", cast('it\'s@example.com' as character varying(200)) as "email", r."O""Brien's ltv" as "O""Brien's ltv", r."profile" as "profile"
  from (
select * from customers -- all of them;
  ) as r
  where r."id" = cast('42' as bigint)
  limit 2
) as m
left join "levin_planner"."p6f0c2a9e_s1_snapshot" as k on k."id" = cast('42' as bigint);

