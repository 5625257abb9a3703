-- preview (returns rows)
select m."id" as c0, m."email" as c1, m."O""Brien's ltv" as c2, case when m."profile" is not null then json_serialize_to_varbyte(m."profile") end as c3
from (
select * from customers -- all of them;
) as m
limit 20;

