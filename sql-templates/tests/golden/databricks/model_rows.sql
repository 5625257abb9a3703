-- the model (returns rows)
select * from (
select * from customers -- all of them;
) as m;

