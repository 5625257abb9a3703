{% macro managed_tables() %}
{{ step("list the managed tables", "rows") }}
select table_name
from {{ schema }}.INFORMATION_SCHEMA.TABLES
where starts_with(table_name, {{ prefix }})
order by table_name
{% endmacro %}
