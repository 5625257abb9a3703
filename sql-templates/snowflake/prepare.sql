{# The database is named, because whoever runs this may have another one before him. #}
{% macro grant_schemas() %}
{{ step("create the planner schema") }}
create schema if not exists {{ database }}.{{ planner_schema }}
{{ step("let the role write the planner schema") }}
grant usage, create table on schema {{ database }}.{{ planner_schema }} to role {{ role }}
{{ step("create the audit schema") }}
create schema if not exists {{ database }}.{{ audit_schema }}
{{ step("let the role write the audit schema") }}
grant usage, create table on schema {{ database }}.{{ audit_schema }} to role {{ role }}
{% endmacro %}

{% macro grant_creating() %}
{{ step("let the role create its schemas") }}
grant create schema on database {{ database }} to role {{ role }}
{% endmacro %}

{% macro grant_models() %}
{{ step("let the role use the database") }}
grant usage on database {{ database }} to role {{ role }}
{% if default_schema %}{% set public %}PUBLIC{% endset %}{{ d.grant_schema(public, role) }}{% endif %}
{% for schema in schemas %}{{ d.grant_schema(schema, role) }}{% endfor %}
{% endmacro %}

{% macro grant_schema(schema, role) %}
{{ step("let the role see the models") }}
grant usage on schema {{ database }}.{{ schema }} to role {{ role }}
{{ step("let the role read the tables") }}
grant select on all tables in schema {{ database }}.{{ schema }} to role {{ role }}
{{ step("let the role read the views") }}
grant select on all views in schema {{ database }}.{{ schema }} to role {{ role }}
{{ step("let the role read future tables") }}
grant select on future tables in schema {{ database }}.{{ schema }} to role {{ role }}
{{ step("let the role read future views") }}
grant select on future views in schema {{ database }}.{{ schema }} to role {{ role }}
{% endmacro %}

{% macro grant_read() %}
{% for schema in schemas %}
{{ step("let the role see the models") }}
grant usage on schema {{ schema }} to role {{ role }}
{% endfor %}
{% for relation in relations %}
{{ step("let the role read the model") }}
grant select on {% if relation.schema %}{{ relation.schema }}.{% endif %}{{ relation.name }} to role {{ role }}
{% endfor %}
{% endmacro %}
