{# Names are kept in lower case. #}
{% macro as_catalogued(name) %}lower({{ name }}){% endmacro %}
{% macro is_table() %}table_type in ('MANAGED', 'EXTERNAL') and data_source_format = 'DELTA'{% endmacro %}
{% macro where_unqualified() %} and table_schema = current_schema(){% endmacro %}

{# A statement is run by a SQL warehouse, of which CAN USE is given in its permissions and by no statement. #}
{% macro grant_creating() %}
{{ step("let the principal create its schemas") }}
grant create schema on catalog {{ database }} to {{ role }}
{% endmacro %}
{% macro grant_schemas() %}
{{ step("create the planner schema") }}
create schema if not exists {{ database }}.{{ planner_schema }}
{{ step("let the principal write the planner schema") }}
grant use schema, create table, select, modify on schema {{ database }}.{{ planner_schema }} to {{ role }}
{{ step("create the audit schema") }}
create schema if not exists {{ database }}.{{ audit_schema }}
{{ step("let the principal write the audit schema") }}
grant use schema, create table, select, modify on schema {{ database }}.{{ audit_schema }} to {{ role }}
{% endmacro %}

{% macro grant_models() %}
{{ step("let the principal use the catalog") }}
grant use catalog on catalog {{ database }} to {{ role }}
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
