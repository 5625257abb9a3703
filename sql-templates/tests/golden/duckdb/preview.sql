-- preview (returns rows)
select m."id" as c0, m."email" as c1, cast(m."O""Brien's ltv" as text) as c2, cast(m."profile" as text) as c3
from (
select * from customers -- all of them;
) as m
limit 20;

