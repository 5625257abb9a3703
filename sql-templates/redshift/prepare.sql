{# Its information_schema shows the schemas that one owns, not those that one may write. #}
{% macro find_schemas() %}
{{ step("find the managed schemas", "rows") }}
select nspname as schema_name
from pg_catalog.pg_namespace
where nspname in ({{ planner_literal }}, {{ audit_literal }})
{% endmacro %}

{# The schemas stay their owner's. #}
{% macro grant_schemas() %}
{{ step("create the planner schema") }}
create schema if not exists {{ planner_schema }}
{{ step("let the role write the planner schema") }}
grant usage, create on schema {{ planner_schema }} to {{ role }}
{{ step("create the audit schema") }}
create schema if not exists {{ audit_schema }}
{{ step("let the role write the audit schema") }}
grant usage, create on schema {{ audit_schema }} to {{ role }}
{% endmacro %}

{% macro grant_creating() %}
{{ step("let the role create its schemas") }}
grant create on database {{ database }} to {{ role }}
{% endmacro %}

{% macro grant_models() %}
{% if default_schema %}{{ d.grant_schema("public" | sql, role) }}{% endif %}
{% for schema in schemas %}{{ d.grant_schema(schema, role) }}{% endfor %}
{% endmacro %}

{% macro grant_schema(schema, role) %}
{{ step("let the role see the models") }}
grant usage on schema {{ schema }} to {{ role }}
{{ step("let the role read the models") }}
grant select on all tables in schema {{ schema }} to {{ role }}
{{ step("let the role read future models") }}
alter default privileges in schema {{ schema }} grant select on tables to {{ role }}
{% endmacro %}

{% macro grant_read() %}
{% for schema in schemas %}
{{ step("let the role see the models") }}
grant usage on schema {{ schema }} to {{ role }}
{% endfor %}
{% for relation in relations %}
{{ step("let the role read the model") }}
grant select on {% if relation.schema %}{{ relation.schema }}.{% endif %}{{ relation.name }} to {{ role }}
{% endfor %}
{% endmacro %}
