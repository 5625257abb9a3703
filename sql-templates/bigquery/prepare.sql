{# Which of the managed datasets are there: the list of all of them is kept by region, which nobody here knows. #}
{% macro find_schemas() %}
{{ step("find the managed schemas", "rows") }}
begin
  declare found array<string> default [];
  begin
    declare tables int64 default (select count(*) from {{ planner_schema }}.INFORMATION_SCHEMA.TABLES);
    set found = array_concat(found, [{{ planner_literal }}]);
  exception when error then
    set found = found;
  end;
  begin
    declare tables int64 default (select count(*) from {{ audit_schema }}.INFORMATION_SCHEMA.TABLES);
    set found = array_concat(found, [{{ audit_literal }}]);
  exception when error then
    set found = found;
  end;
  select schema_name from unnest(found) as schema_name;
end
{% endmacro %}

{# The catalogue is asked by dataset. What is named without one is not looked for, and counts as no table. #}
{% macro relation_kind() %}
{{ step("look at the relation", "rows") }}
{% if table_schema %}
select count(*) as found, coalesce(sum(if(table_type = 'BASE TABLE', 1, 0)), 0) as tables
from {{ schema }}.INFORMATION_SCHEMA.TABLES
where table_name = {{ table_name }}
{% else %}
select 0 as found, 0 as tables
{% endif %}
{% endmacro %}

{# Running jobs and creating datasets are rights in the project, which statements cannot give. #}
{% macro grant_schemas() %}
{{ step("create the planner schema") }}
create schema if not exists {{ planner_schema }}
{{ step("let the account write the planner schema") }}
grant `roles/bigquery.dataEditor` on schema {{ planner_schema }} to {{ principal }}
{{ step("create the audit schema") }}
create schema if not exists {{ audit_schema }}
{{ step("let the account write the audit schema") }}
grant `roles/bigquery.dataEditor` on schema {{ audit_schema }} to {{ principal }}
{% endmacro %}

{% macro grant_models() %}
{% for schema in schemas %}
{{ step("let the account read the models") }}
grant `roles/bigquery.dataViewer` on schema {{ schema }} to {{ principal }}
{% endfor %}
{% endmacro %}

{% macro grant_read() %}
{% for relation in relations %}
{{ step("let the account read the model") }}
grant `roles/bigquery.dataViewer` on table {% if relation.schema %}{{ relation.schema }}.{% endif %}{{ relation.name }} to {{ principal }}
{% endfor %}
{% endmacro %}
