{# What auditors and dashboards read: one row per run, in the audit schema. #}
{% macro create_audit() %}
{{ step("create the audit of runs") }}
create table if not exists {{ sync_runs }} as
select
  {{ d.wide(none) }} as sync_id,
  {{ d.wide(none) }} as sync_run_id,
  cast(null as {{ d.type_text() }}) as primary_key,
  cast(null as {{ d.type_text() }}) as destination,
  cast(null as {{ d.type_text() }}) as model_name,
  cast(null as {{ d.type_text() }}) as error,
  cast(null as {{ d.type_text() }}) as status,
  cast(null as {{ d.type_instant() }}) as started_at,
  cast(null as {{ d.type_instant() }}) as finished_at,
{% for count in counts %}
  {{ d.wide(none) }} as {{ count | sql }}{% if not loop.last %},{% endif +%}
{% endfor %}
{{ d.no_rows() }}
{% endmacro %}

{% macro audit_run() %}
{{ step("write the audit of the run") }}
insert into {{ sync_runs }}
select {{ sync_id }}, {{ run }}, {{ primary_key }}, {{ destination }}, {{ model_name }}, {{ error }}, {{ status }},
  {{ d.instant(started_at) }}, {{ d.instant(finished_at) }}{% for n in numbers %}, {{ n }}{% endfor +%}
{% endmacro %}
