{# Names are kept in lower case. What is read twice in one statement is a table of Delta's, which has one state then. #}
{% macro find_schemas() %}
{{ step("find the managed schemas", "rows") }}
select schema_name
from information_schema.schemata
where schema_name in (lower({{ planner_literal }}), lower({{ audit_literal }}))
{% endmacro %}
{% macro relation_kind() %}
{{ step("look at the relation", "rows") }}
select count(*) as found, coalesce(sum(case when table_type in ('MANAGED', 'EXTERNAL') and data_source_format = 'DELTA' then 1 else 0 end), 0) as tables
from information_schema.tables
where table_name = lower({{ table_name }}) and table_schema = {% if table_schema %}lower({{ table_schema }}){% else %}current_schema(){% endif +%}
{% endmacro %}

{% macro grants() %}
{{ step("let the principal use the catalog") }}
grant use catalog on catalog {{ database }} to {{ role }}
{{ step("create the planner schema") }}
create schema if not exists {{ database }}.{{ planner_schema }}
{{ step("let the principal write the planner schema") }}
grant use schema, create table, select, modify on schema {{ database }}.{{ planner_schema }} to {{ role }}
{{ step("create the audit schema") }}
create schema if not exists {{ database }}.{{ audit_schema }}
{{ step("let the principal write the audit schema") }}
grant use schema, create table, select, modify on schema {{ database }}.{{ audit_schema }} to {{ role }}
{% if default_schema %}{% set default %}default{% endset %}{{ d.grant_schema(default, role) }}{% endif %}
{% for schema in schemas %}{{ d.grant_schema(schema, role) }}{% endfor %}
{% endmacro %}

{% macro grant_schema(schema, role) %}
{{ step("let the principal read the models") }}
grant use schema, select on schema {{ database }}.{{ schema }} to {{ role }}
{% endmacro %}

{% macro grant_read() %}
{% for schema in schemas %}
{{ step("let the principal see the models") }}
grant use schema on schema {{ schema }} to {{ role }}
{% endfor %}
{% for relation in relations %}
{{ step("let the principal read the model") }}
grant select on table {% if relation.schema %}{{ relation.schema }}.{% endif %}{{ relation.name }} to {{ role }}
{% endfor %}
{% endmacro %}
