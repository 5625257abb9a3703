{% macro prune() %}
{% for table in tables %}
{{ step("drop a leftover") }}
{{ d.drop(table) }}
{% endfor %}
{% endmacro %}

{# Every managed table of one project, to find what was left behind. #}
{% macro managed_tables() %}
{{ step("list the managed tables", "rows") }}
select table_name
from information_schema.tables
where table_schema = {{ schema_literal }} and {{ d.exact_name("table_name" | sql) }} like {{ pattern }} escape {{ escape }}
order by table_name
{% endmacro %}
