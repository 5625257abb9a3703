-- the model (returns rows)
select * from customers -- all of them;;

