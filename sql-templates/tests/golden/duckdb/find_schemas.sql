-- find the managed schemas (returns rows)
select schema_name
from information_schema.schemata
where schema_name in ('levin_planner', 'levin_audit');

