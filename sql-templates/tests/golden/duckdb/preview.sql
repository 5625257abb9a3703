-- preview (returns rows)
select m."id" as c0, m."email" as c1, case when starts_with(cast(m."O""Brien's ltv" as text), '.') or starts_with(cast(m."O""Brien's ltv" as text), '-.') then replace(cast(m."O""Brien's ltv" as text), '.', '0.') else cast(m."O""Brien's ltv" as text) end as c2, cast(m."profile" as text) as c3
from (
select * from customers -- all of them;
) as m
limit 20;

