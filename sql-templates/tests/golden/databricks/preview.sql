-- preview (returns rows)
select m.`id` as c0, m.`email` as c1, m.`O"Brien's ltv` as c2, m.`profile` as c3
from (
select * from customers -- all of them;
) as m
limit 20;

