-- write the rows
create table "levin_planner"."p6f0c2a9e_s1_diff_7" as
select m."id", m."email", m."O""Brien's ltv", m."profile"
from (
select * from customers -- all of them;
) as m
where m."id" is not null;

-- add the generation
alter table "levin_planner"."p6f0c2a9e_s1_diff_7" add column _levin_generation bigint default 7;

-- leave no default behind
alter table "levin_planner"."p6f0c2a9e_s1_diff_7" alter column _levin_generation drop default;

-- index the keys
create unique index on "levin_planner"."p6f0c2a9e_s1_diff_7" ("id");

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, 0 as changed, 0 as removed, 0 as known, r.added as expected,
  0 as own_duplicates, 0 as longest_key
from (
  select count(*) as queried, cast(coalesce(sum(case when m."id" is null then 1 else 0 end), 0) as bigint) as null_keys
  from (
select * from customers -- all of them;
) as m
) as q
cross join (select count(*) as added from "levin_planner"."p6f0c2a9e_s1_diff_7") as r;

