{% macro where_unqualified() %} and table_schema = database(){% endmacro %}
{# Not as a sub-select: there a second column of one name is an error. #}
{% macro model_rows() %}
{{ step("the model", "rows") }}
{{ model }}
{% endmacro %}
{# Schemas are databases here. A right may be given before there is what it is about, and who has all of them may make it. #}
{% macro grant_schemas() %}
{{ step("create the planner schema") }}
create schema if not exists {{ planner_schema }}
{{ step("create the audit schema") }}
create schema if not exists {{ audit_schema }}
{{ d.grant_creating() }}
{% endmacro %}

{% macro grant_creating() %}
{{ step("let the role write the planner schema") }}
grant all privileges on {{ planner_schema }}.* to {{ role }}
{{ step("let the role write the audit schema") }}
grant all privileges on {{ audit_schema }}.* to {{ role }}
{% endmacro %}

{% macro grant_models() %}
{% if default_schema %}
{{ step("let the role read the models") }}
grant select on {{ database }}.* to {{ role }}
{% endif %}
{% for schema in schemas %}
{{ step("let the role read the models") }}
grant select on {{ schema }}.* to {{ role }}
{% endfor %}
{% endmacro %}
{% macro grant_read() %}
{% for relation in relations %}
{{ step("let the role read the model") }}
grant select on {% if relation.schema %}{{ relation.schema }}.{% endif %}{{ relation.name }} to {{ role }}
{% endfor %}
{% endmacro %}
