{% macro managed_tables() %}
{{ step("list the managed tables", "rows") }}
select table_name, 'managed' as kind
from {{ schema }}.INFORMATION_SCHEMA.TABLES
where starts_with(table_name, {{ prefix }})
{% if relation and table_schema %}
union all
select table_name, if(table_type = 'BASE TABLE', 'table', 'relation')
from {{ relation_schema }}.INFORMATION_SCHEMA.TABLES
where table_name = {{ table_name }}
{% endif %}
order by table_name
{% endmacro %}
