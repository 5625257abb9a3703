-- look at the relation (returns rows)
select count(*) as found, coalesce(sum(if(table_type = 'BASE TABLE', 1, 0)), 0) as tables
from `public`.INFORMATION_SCHEMA.TABLES
where table_name = 'customers';

