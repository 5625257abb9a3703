-- fence (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set checkpoint = checkpoint + 1, basis = 7,
    delivering = null, delivering_table = null, delivering_shape = null, delivering_sent = null, delivering_store = null, delivering_run = null
where generation = 7 and checkpoint = 0;

-- forget rejections
delete from "levin_planner"."p6f0c2a9e_s1_rejections";

-- forget doubts
delete from "levin_planner"."p6f0c2a9e_s1_doubts";

-- record the keys set aside
insert into "levin_planner"."p6f0c2a9e_s1_rejections" ("tenant", "id", _levin_generation, _levin_checkpoint, _levin_operation, _levin_code, _levin_reason, _levin_attempts, _levin_rows, _levin_run, _levin_sequence, _levin_fingerprint, _levin_parked, _levin_first_at, _levin_last_at)
select a."tenant", a."id", 7, 1,
  'added', a._levin_code, 'rows with this key: ' || cast(a._levin_rows as varchar(65535)),
  0, a._levin_rows, 12, 0, null, 1 = 0,
  coalesce(r._levin_first_at, cast(getdate() as timestamp with time zone)), cast(getdate() as timestamp with time zone)
from "levin_planner"."p6f0c2a9e_s1_set_aside_7" as a
left join "levin_planner"."p6f0c2a9e_s1_rejections" as r on coalesce(cast(rtrim(r."tenant", ' ') as varchar(65535)), '') = coalesce(cast(rtrim(a."tenant", ' ') as varchar(65535)), '') and (r."tenant" is null) = (a."tenant" is null) and coalesce(cast(r."id" as varchar(65535)), '') = coalesce(cast(a."id" as varchar(65535)), '') and (r."id" is null) = (a."id" is null);

-- forget their older entries
delete from "levin_planner"."p6f0c2a9e_s1_rejections"
where ("p6f0c2a9e_s1_rejections"._levin_generation < 7 or "p6f0c2a9e_s1_rejections"._levin_checkpoint < 1)
  and exists (
    select 1 from "levin_planner"."p6f0c2a9e_s1_rejections" as n
    where n._levin_generation = 7 and n._levin_checkpoint = 1
      and coalesce(cast(rtrim(n."tenant", ' ') as varchar(65535)), '') = coalesce(cast(rtrim("p6f0c2a9e_s1_rejections"."tenant", ' ') as varchar(65535)), '') and (n."tenant" is null) = ("p6f0c2a9e_s1_rejections"."tenant" is null) and coalesce(cast(n."id" as varchar(65535)), '') = coalesce(cast("p6f0c2a9e_s1_rejections"."id" as varchar(65535)), '') and (n."id" is null) = ("p6f0c2a9e_s1_rejections"."id" is null)
  );

-- forget the sequences
alter table "levin_planner"."p6f0c2a9e_s1_diff_7" drop column _levin_sequence;

-- keep what was known of keys set aside
insert into "levin_planner"."p6f0c2a9e_s1_diff_7"
select s."tenant", s."id", s."email", s._levin_generation
from "levin_planner"."p6f0c2a9e_s1_snapshot" as s
where exists (select 1 from "levin_planner"."p6f0c2a9e_s1_set_aside_7" as a where a."tenant" = s."tenant" and a."id" = s."id");

-- drop the old snapshot
drop table if exists "levin_planner"."p6f0c2a9e_s1_snapshot";

-- the diff becomes the snapshot
alter table "levin_planner"."p6f0c2a9e_s1_diff_7" rename to "p6f0c2a9e_s1_snapshot";

-- count what is left
update "levin_planner"."p6f0c2a9e_s1_state"
set doubts = (select count(*) from "levin_planner"."p6f0c2a9e_s1_doubts"),
    rejections = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections"),
    refused = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_fingerprint is not null),
    parked = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_parked)
where generation = 7;

