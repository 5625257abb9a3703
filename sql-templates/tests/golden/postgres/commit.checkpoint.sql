-- fence (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set checkpoint = checkpoint + 1, basis = 7
where generation = 7 and checkpoint = 3;

-- hold the rows where they are
lock table "levin_planner"."p6f0c2a9e_s1_diff_7" in access share mode;

-- the rows are where they were (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set delivering_numbers = delivering_numbers
where generation = 7 and (delivering_numbers is null or delivering_numbers = (
    select pg_relation_filenode(c.oid)::text
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'levin_planner' and c.relname = 'p6f0c2a9e_s1_diff_7'
  ));

-- close rejections
delete from "levin_planner"."p6f0c2a9e_s1_rejections" as t
where not (t._levin_generation = 7 and t._levin_checkpoint = 4)
  and (exists (
    select 1 from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
    where coalesce(cast(f."id" as text), '') = coalesce(cast(t."id" as text), '') and (f."id" is null) = (t."id" is null) and ((f._levin_operation = 'removed' and f."ctid" between '(0,1)'::tid and '(0,7)'::tid) or (f._levin_operation = 'changed' and f."ctid" between '(0,8)'::tid and '(0,353)'::tid))
  ));

-- write accepted changes into the snapshot
update "levin_planner"."p6f0c2a9e_s1_snapshot" as t
set "id" = f."id", "email" = f."email", "O""Brien's ltv" = f."O""Brien's ltv", "profile" = f."profile", _levin_generation = 7
from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
where f."id" = t."id" and f._levin_operation = 'changed'
  and ((f._levin_operation = 'removed' and f."ctid" between '(0,1)'::tid and '(0,7)'::tid) or (f._levin_operation = 'changed' and f."ctid" between '(0,8)'::tid and '(0,353)'::tid));

-- take accepted rows out of the snapshot
delete from "levin_planner"."p6f0c2a9e_s1_snapshot" as t
where t."id" in (
  select f."id" from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
  where f._levin_operation <> 'changed' and ((f._levin_operation = 'removed' and f."ctid" between '(0,1)'::tid and '(0,7)'::tid) or (f._levin_operation = 'changed' and f."ctid" between '(0,8)'::tid and '(0,353)'::tid))
);

-- put accepted rows into the snapshot
insert into "levin_planner"."p6f0c2a9e_s1_snapshot"
select f."id", f."email", f."O""Brien's ltv", f."profile", 7
from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
where ((f._levin_operation = 'removed' and f."ctid" between '(0,1)'::tid and '(0,7)'::tid) or (f._levin_operation = 'changed' and f."ctid" between '(0,8)'::tid and '(0,353)'::tid))
  and f._levin_operation = 'added';

-- count what is left
update "levin_planner"."p6f0c2a9e_s1_state"
set doubts = (select count(*) from "levin_planner"."p6f0c2a9e_s1_doubts"),
    rejections = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections"),
    refused = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_fingerprint is not null),
    parked = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_parked),
    lease_until = clock_timestamp() + interval '60 seconds'
where generation = 7;

