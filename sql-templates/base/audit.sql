{# What auditors and dashboards read: one row per run, in the audit schema. #}
{% macro create_audit() %}
{{ step("create the audit of runs") }}
create table if not exists {{ sync_runs }} as
select
  cast(null as {{ d.type_bigint() }}) as sync_id,
  cast(null as {{ d.type_bigint() }}) as sync_run_id,
  cast(null as {{ d.type_text() }}) as primary_key,
  cast(null as {{ d.type_text() }}) as destination,
  cast(null as {{ d.type_text() }}) as model_name,
  cast(null as {{ d.type_text() }}) as error,
  cast(null as {{ d.type_text() }}) as status,
  cast(null as {{ d.type_instant() }}) as started_at,
  cast(null as {{ d.type_instant() }}) as finished_at,
{% for count in counts %}
  cast(null as {{ d.type_bigint() }}) as {{ count | sql }}{% if not loop.last %},{% endif +%}
{% endfor %}
where 1 = 0
{% endmacro %}

{% macro audit_run() %}
{{ step("write the audit of the run") }}
insert into {{ sync_runs }}
select {{ sync_id }}, {{ run }}, {{ primary_key }}, {{ destination }}, {{ model_name }}, {{ error }}, {{ status }},
  cast({{ started_at }} as {{ d.type_instant() }}), cast({{ finished_at }} as {{ d.type_instant() }}){% for n in numbers %}, {{ n }}{% endfor +%}
{% endmacro %}
