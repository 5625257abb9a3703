-- fence (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set checkpoint = checkpoint + 1, basis = 7,
    delivering = null, delivering_table = null, delivering_shape = null, delivering_sent = null, delivering_store = null, delivering_run = null
where generation = 7 and checkpoint = 0;

-- record the rejections
insert into "levin_planner"."p6f0c2a9e_s1_rejections" ("id", _levin_generation, _levin_checkpoint, _levin_operation, _levin_code, _levin_reason, _levin_attempts, _levin_rows, _levin_run, _levin_sequence, _levin_fingerprint, _levin_parked, _levin_first_at, _levin_last_at)
select f."id", 7, 1,
f._levin_operation, o.code, o.reason,
  case when r._levin_run = 12 and r._levin_sequence = f._levin_sequence then r._levin_attempts else
    case when r._levin_parked then 0 else coalesce(r._levin_attempts, 0) end + case when o.code in ('REFUSED', 'NOT_FOUND') then 1 else 0 end end, 1, 12, f._levin_sequence,
  case when r._levin_run = 12 and r._levin_sequence = f._levin_sequence then r._levin_fingerprint else sha2('4f2a' || case when f._levin_operation = 'removed' then 'removed' else f._levin_operation || coalesce(sha2(cast(f."email" as varchar(65535)), 256), '-') || coalesce(sha2(cast(f."O""Brien's ltv" as varchar(65535)), 256), '-') || coalesce(sha2(case when f."profile" is null then null when json_size(f."profile") > 65535 then cast(json_size(f."profile") as varchar(65535)) else json_serialize(f."profile") end, 256), '-') end, 256) end,
  case when r._levin_run = 12 and r._levin_sequence = f._levin_sequence then r._levin_parked else o.code in ('REFUSED', 'NOT_FOUND') and case when r._levin_run = 12 and r._levin_sequence = f._levin_sequence then r._levin_attempts else
    case when r._levin_parked then 0 else coalesce(r._levin_attempts, 0) end + case when o.code in ('REFUSED', 'NOT_FOUND') then 1 else 0 end end >= 3 end,
  coalesce(r._levin_first_at, cast(getdate() as timestamp with time zone)), cast(getdate() as timestamp with time zone)
from "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o
join "levin_planner"."p6f0c2a9e_s1_diff_7" as f on o.sequence = f._levin_sequence
left join "levin_planner"."p6f0c2a9e_s1_rejections" as r on coalesce(cast(r."id" as varchar(65535)), '') = coalesce(cast(f."id" as varchar(65535)), '') and (r."id" is null) = (f."id" is null)
where o.outcome = 'rejected';

-- forget their older entries
delete from "levin_planner"."p6f0c2a9e_s1_rejections"
where ("p6f0c2a9e_s1_rejections"._levin_generation < 7 or "p6f0c2a9e_s1_rejections"._levin_checkpoint < 1)
  and exists (
    select 1 from "levin_planner"."p6f0c2a9e_s1_rejections" as n
    where n._levin_generation = 7 and n._levin_checkpoint = 1
      and coalesce(cast(n."id" as varchar(65535)), '') = coalesce(cast("p6f0c2a9e_s1_rejections"."id" as varchar(65535)), '') and (n."id" is null) = ("p6f0c2a9e_s1_rejections"."id" is null)
  );

-- close rejections
delete from "levin_planner"."p6f0c2a9e_s1_rejections"
where not ("p6f0c2a9e_s1_rejections"._levin_generation = 7 and "p6f0c2a9e_s1_rejections"._levin_checkpoint = 1)
  and (not exists (
    select 1 from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
    where coalesce(cast(f."id" as varchar(65535)), '') = coalesce(cast("p6f0c2a9e_s1_rejections"."id" as varchar(65535)), '') and (f."id" is null) = ("p6f0c2a9e_s1_rejections"."id" is null)
  )
  or exists (
    select 1 from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
    where coalesce(cast(f."id" as varchar(65535)), '') = coalesce(cast("p6f0c2a9e_s1_rejections"."id" as varchar(65535)), '') and (f."id" is null) = ("p6f0c2a9e_s1_rejections"."id" is null) and ((f._levin_operation = 'changed' and f._levin_sequence between 1 and 100) or (f._levin_operation = 'added' and f._levin_sequence between 201 and 353))
    and not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o where o.sequence = f._levin_sequence)
  ));

-- end doubts
delete from "levin_planner"."p6f0c2a9e_s1_doubts"
where exists (
  select 1 from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
  where f."id" = "p6f0c2a9e_s1_doubts"."id"
    and (((f._levin_operation = 'changed' and f._levin_sequence between 1 and 100) or (f._levin_operation = 'added' and f._levin_sequence between 201 and 353))
    and not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o where o.sequence = f._levin_sequence) or f._levin_operation = 'removed')
);

-- replace older doubts
delete from "levin_planner"."p6f0c2a9e_s1_doubts"
where exists (
  select 1 from "levin_planner"."p6f0c2a9e_s1_diff_7" as f join "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o on o.sequence = f._levin_sequence
  where o.in_doubt and f."id" = "p6f0c2a9e_s1_doubts"."id"
);

-- write the doubts
insert into "levin_planner"."p6f0c2a9e_s1_doubts"
select f."id", case when f._levin_operation = 'removed' then f._levin_previous1 else f."email" end,
case when f._levin_operation = 'removed' then f._levin_previous2 else f."O""Brien's ltv" end,
case when f._levin_operation = 'removed' then f._levin_previous3 else f."profile" end,

  7, f._levin_operation, coalesce(f._levin_version, '7.' || cast(f._levin_sequence as varchar(65535)))
from "levin_planner"."p6f0c2a9e_s1_diff_7" as f join "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o on o.sequence = f._levin_sequence
where o.in_doubt;

-- take accepted rows out of the snapshot
delete from "levin_planner"."p6f0c2a9e_s1_snapshot"
where exists (
  select 1 from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
  where f."id" = "p6f0c2a9e_s1_snapshot"."id" and (((f._levin_operation = 'changed' and f._levin_sequence between 1 and 100) or (f._levin_operation = 'added' and f._levin_sequence between 201 and 353))
    and not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o where o.sequence = f._levin_sequence) or f._levin_operation = 'removed')
);

-- put accepted rows into the snapshot
insert into "levin_planner"."p6f0c2a9e_s1_snapshot"
select f."id", f."email", f."O""Brien's ltv", f."profile", 7
from "levin_planner"."p6f0c2a9e_s1_diff_7" as f
where ((f._levin_operation = 'changed' and f._levin_sequence between 1 and 100) or (f._levin_operation = 'added' and f._levin_sequence between 201 and 353))
    and not exists (select 1 from "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o where o.sequence = f._levin_sequence)
  and f._levin_operation <> 'removed';

-- count what is left
update "levin_planner"."p6f0c2a9e_s1_state"
set doubts = (select count(*) from "levin_planner"."p6f0c2a9e_s1_doubts"),
    rejections = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections"),
    refused = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_fingerprint is not null),
    parked = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_parked)
where generation = 7;

