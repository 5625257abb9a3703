-- list the managed tables (returns rows)
select table_name, 'managed' as kind
from `levin_planner`.INFORMATION_SCHEMA.TABLES
where starts_with(table_name, 'p6f0c2a9e_')
union all
select table_name, if(table_type = 'BASE TABLE', 'table', 'relation')
from `public`.INFORMATION_SCHEMA.TABLES
where table_name = 'customers'
order by table_name;

