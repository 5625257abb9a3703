-- write the doubts in their new shape
create table "levin_planner"."p6f0c2a9e_s1_doubts_new" as
select m."email", m."city", s."_levin_generation", s."_levin_operation", s."_levin_version"
from (
select * from customers -- all of them;
) as m, "levin_planner"."p6f0c2a9e_s1_doubts" as s
where 1 = 0
union all
select s."email", null, s."_levin_generation", s."_levin_operation", s."_levin_version"
from "levin_planner"."p6f0c2a9e_s1_doubts" as s;

-- drop the old shape
drop table if exists "levin_planner"."p6f0c2a9e_s1_doubts" cascade;

-- put the new shape in its place
alter table "levin_planner"."p6f0c2a9e_s1_doubts_new" rename to "p6f0c2a9e_s1_doubts";

