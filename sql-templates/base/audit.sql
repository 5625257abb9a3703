{# What auditors and dashboards read: one row per run, in the audit schema. #}
{% macro create_audit() %}
{{ step("create the audit of runs") }}
create table if not exists {{ sync_runs }} (
  sync_id {{ d.type_bigint() }},
  sync_run_id {{ d.type_bigint() }},
  primary_key {{ d.type_text() }},
  destination {{ d.type_text() }},
  model_name {{ d.type_text() }},
  error {{ d.type_text() }},
  status {{ d.type_text() }},
  started_at {{ d.type_instant() }},
  finished_at {{ d.type_instant() }},
{% for count in counts %}
  {{ count }} {{ d.type_bigint() }}{% if not loop.last %},{% endif +%}
{% endfor %}
)
{% endmacro %}

{% macro audit_run() %}
{{ step("write the audit of the run") }}
insert into {{ sync_runs }}
select {{ sync_id }}, {{ run }}, {{ primary_key }}, {{ destination }}, {{ model_name }}, {{ error }}, {{ status }},
  cast({{ started_at }} as {{ d.type_instant() }}), cast({{ finished_at }} as {{ d.type_instant() }}){% for n in numbers %}, {{ n }}{% endfor +%}
{% endmacro %}
