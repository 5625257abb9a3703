-- list the managed tables (returns rows)
select table_name, 'managed' as kind
from information_schema.tables
where table_schema = lower('levin_planner') and table_name like 'p6f0c2a9e\\_%' escape '\\'
order by table_name;

