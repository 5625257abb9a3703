-- list the managed tables (returns rows)
select table_name, 'managed' as kind
from information_schema.tables
where table_schema = 'levin_planner' and table_name like 'p6f0c2a9e\\_%' escape '\\'
union all
select table_name, case when table_type = 'BASE TABLE' then 'table' else 'relation' end
from information_schema.tables
where table_name = 'customers' and table_schema = 'public'
order by table_name;

