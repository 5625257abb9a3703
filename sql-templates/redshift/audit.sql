{# A table of a select's columns cannot be made only where there is none. #}
{% macro create_audit() %}
{{ step("create the audit of runs") }}
create table if not exists {{ sync_runs }} (
  sync_id bigint,
  sync_run_id bigint,
  primary_key {{ d.type_text() }},
  destination {{ d.type_text() }},
  model_name {{ d.type_text() }},
  error {{ d.type_text() }},
  status {{ d.type_text() }},
  started_at {{ d.type_instant() }},
  finished_at {{ d.type_instant() }},
{% for count in counts %}
  {{ count | sql }} bigint{% if not loop.last %},{% endif +%}
{% endfor %}
)
{% endmacro %}
