-- list the managed tables (returns rows)
select table_name, 'managed' as kind
from information_schema.tables
where table_schema = lower('levin_planner') and table_name like 'p6f0c2a9e\\_%' escape '\\'
union all
select table_name, case when table_type in ('MANAGED', 'EXTERNAL') and data_source_format = 'DELTA' then 'table' else 'relation' end
from information_schema.tables
where table_name = lower('customers') and table_schema = lower('public')
order by table_name;

