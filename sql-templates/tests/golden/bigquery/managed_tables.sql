-- list the managed tables (returns rows)
select table_name, 'managed' as kind
from `levin_planner`.INFORMATION_SCHEMA.TABLES
where starts_with(table_name, 'p6f0c2a9e_')
order by table_name;

