-- look at the relation (returns rows)
select count(*) as found, cast(coalesce(sum(case when table_type in ('MANAGED', 'EXTERNAL') and data_source_format = 'DELTA' then 1 else 0 end), 0) as bigint) as tables
from information_schema.tables
where table_name = lower('customers') and table_schema = lower('public');

