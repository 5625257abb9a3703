-- look at the relation (returns rows)
select count(*) as found, cast(coalesce(sum(case when table_type = 'BASE TABLE' then 1 else 0 end), 0) as bigint) as tables
from information_schema.tables
where table_name = 'customers' and table_schema = 'public';

