{% macro grants() %}
{{ step("create the planner schema") }}
create schema if not exists {{ planner_schema }} authorization {{ role }}
{{ step("create the audit schema") }}
create schema if not exists {{ audit_schema }} authorization {{ role }}
{{ step("let the role connect") }}
grant connect on database {{ database }} to {{ role }}
{{ step("let the role see the models") }}
grant usage on schema public to {{ role }}
{{ step("let the role read the models") }}
grant select on all tables in schema public to {{ role }}
{{ step("let the role read future models") }}
alter default privileges in schema public grant select on tables to {{ role }}
{% endmacro %}
