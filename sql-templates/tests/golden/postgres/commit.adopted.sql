-- fence (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set checkpoint = checkpoint + 1, basis = 7,
    delivering = null, delivering_table = null, delivering_shape = null, delivering_sent = null, delivering_store = null, delivering_run = null
where generation = 7 and checkpoint = 0;

-- hold the rows where they are
lock table "levin_planner"."p6f0c2a9e_s1_diff_7" in access share mode;

-- the rows are where they were (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set delivering_numbers = null
where generation = 7 and (delivering_numbers is null or delivering_numbers = (
    select pg_relation_filenode(c.oid)::text
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'levin_planner' and c.relname = 'p6f0c2a9e_s1_diff_7'
  ));

-- record the rejections
insert into "levin_planner"."p6f0c2a9e_s1_rejections" ("id", _levin_generation, _levin_checkpoint, _levin_operation, _levin_code, _levin_reason, _levin_attempts, _levin_rows, _levin_run, _levin_sequence, _levin_fingerprint, _levin_parked, _levin_first_at, _levin_last_at)
select f."id", 7, 1,
'added', o.code, o.reason,
  case when r._levin_run = 12 and r._levin_sequence = ('x' || encode(tidsend(f."ctid"), 'hex'))::bit(48)::bigint then r._levin_attempts else
    case when r._levin_parked then 0 else coalesce(r._levin_attempts, 0) end + 1 end, 1, 12, ('x' || encode(tidsend(f."ctid"), 'hex'))::bit(48)::bigint,
  case when r._levin_run = 12 and r._levin_sequence = ('x' || encode(tidsend(f."ctid"), 'hex'))::bit(48)::bigint then r._levin_fingerprint else '' end,
  case when r._levin_run = 12 and r._levin_sequence = ('x' || encode(tidsend(f."ctid"), 'hex'))::bit(48)::bigint then r._levin_parked else 1 = 0 end,
  coalesce(r._levin_first_at, clock_timestamp()), clock_timestamp()
from "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o
join "levin_planner"."p6f0c2a9e_s1_diff_7" as f on ('(' || (o.sequence >> 16)::text || ',' || (o.sequence & 65535)::text || ')')::tid = f."ctid"
left join "levin_planner"."p6f0c2a9e_s1_rejections" as r on coalesce(cast(r."id" as text), '') = coalesce(cast(f."id" as text), '') and (r."id" is null) = (f."id" is null)
where o.outcome = 'rejected';

-- forget their older entries
delete from "levin_planner"."p6f0c2a9e_s1_rejections" as t
where (t._levin_generation < 7 or t._levin_checkpoint < 1)
  and exists (
    select 1 from "levin_planner"."p6f0c2a9e_s1_rejections" as n
    where n._levin_generation = 7 and n._levin_checkpoint = 1
      and coalesce(cast(n."id" as text), '') = coalesce(cast(t."id" as text), '') and (n."id" is null) = (t."id" is null)
  );

-- replace older doubts
delete from "levin_planner"."p6f0c2a9e_s1_doubts" as t
where exists (
  select 1 from "levin_planner"."p6f0c2a9e_s1_diff_7" as f join "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o on ('(' || (o.sequence >> 16)::text || ',' || (o.sequence & 65535)::text || ')')::tid = f."ctid"
  where o.in_doubt and f."id" = t."id"
);

-- write the doubts
insert into "levin_planner"."p6f0c2a9e_s1_doubts"
select f."id", f."email",
f."O""Brien's ltv",
f."profile",

  7, 'added', '7.' || cast(('x' || encode(tidsend(f."ctid"), 'hex'))::bit(48)::bigint as text)
from "levin_planner"."p6f0c2a9e_s1_diff_7" as f join "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o on ('(' || (o.sequence >> 16)::text || ',' || (o.sequence & 65535)::text || ')')::tid = f."ctid"
where o.in_doubt;

-- drop the old snapshot
drop table if exists "levin_planner"."p6f0c2a9e_s1_snapshot" cascade;

-- the diff becomes the snapshot
alter table "levin_planner"."p6f0c2a9e_s1_diff_7" rename to "p6f0c2a9e_s1_snapshot";

-- leave out what was not accepted
delete from "levin_planner"."p6f0c2a9e_s1_snapshot" as t
where t."ctid" in (select ('(' || (o.sequence >> 16)::text || ',' || (o.sequence & 65535)::text || ')')::tid from "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" as o);

-- count what is left
update "levin_planner"."p6f0c2a9e_s1_state"
set doubts = (select count(*) from "levin_planner"."p6f0c2a9e_s1_doubts"),
    rejections = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections"),
    refused = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_fingerprint is not null),
    parked = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_parked)
where generation = 7;

