-- look at the row (returns rows)
select cast(1 as bigint) as _levin_sequence, '111' as _levin_changed, 'test.4f2a' as _levin_version, cast(null as varchar(65535)) as _levin_claim
  , m."id" as k0
  , m."email" as c0
  , m."O""Brien's ltv" as c1
  , case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end as c2
  , m."email" as p0
from (
  select r."id" as "id", r."email" as "email", r."O""Brien's ltv" as "O""Brien's ltv", r."profile" as "profile"
  from "levin_planner"."p6f0c2a9e_s1_snapshot" as r
  where r."id" = cast('42' as bigint)
  limit 2
) as m;

