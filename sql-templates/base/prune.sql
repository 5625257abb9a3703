{% macro prune() %}
{% for table in tables %}
{{ step("drop a leftover") }}
{{ d.drop(table) }}
{% endfor %}
{% endmacro %}

{# Every managed table of one project, to find what was left behind. #}
{# … and, asked for in the same breath, what of the name that the model reads is a table. #}
{% macro managed_tables() %}
{{ step("list the managed tables", "rows") }}
select table_name, 'managed' as kind
from information_schema.tables
where table_schema = {{ d.as_catalogued(schema_literal) }} and {{ d.exact_name("table_name" | sql) }} like {{ pattern }} escape {{ escape }}
{% if relation %}
union all
select table_name, case when {{ d.is_table() }} then 'table' else 'relation' end
from information_schema.tables
where {{ d.is_relation() }}
{% endif %}
order by table_name
{% endmacro %}
