{# Which of the managed schemas are there: creating one that is needs a right that levin may lack. #}
{% macro find_schemas() %}
{{ step("find the managed schemas", "rows") }}
select schema_name
from information_schema.schemata
where schema_name in ({{ d.as_catalogued(planner_literal) }}, {{ d.as_catalogued(audit_literal) }})
{% endmacro %}

{% macro create_schemas() %}
{{ step("create the planner schema") }}
create schema if not exists {{ planner_schema }}
{{ step("create the audit schema") }}
create schema if not exists {{ audit_schema }}
{% endmacro %}

{% macro create_state() %}
{# Made with its row, in one statement: two that begin at once make one. #}
{{ step("create the state") }}
{{ d.create_once() }} {{ d.made(state) }} as
select
  cast({{ project }} as {{ d.type_text() }}) as project,
  {{ d.wide(sync_id) }} as sync_id,
  cast({{ sync_slug }} as {{ d.type_text() }}) as sync_slug,
  {{ d.wide(generation) }} as generation,
  {{ d.wide(0) }} as checkpoint,
  cast(null as {{ d.type_text() }}) as holder,
  cast(null as {{ d.type_instant() }}) as lease_until,
  {{ d.wide(none) }} as delivering,
  cast(null as {{ d.type_text() }}) as delivering_table,
  cast(null as {{ d.type_text() }}) as delivering_store,
  {{ d.wide(none) }} as delivering_run,
  cast(null as {{ d.type_text() }}) as delivering_shape,
  cast(null as {{ d.type_text() }}) as delivering_sent,
  cast(null as {{ d.type_text() }}) as delivering_numbers,
  {{ d.wide(0) }} as due_before,
  cast(null as {{ d.type_text() }}) as target,
  cast(null as {{ d.type_text() }}) as definition,
  {{ d.wide(none) }} as queried,
  {{ d.wide(0) }} as doubts,
  {{ d.wide(0) }} as rejections,
  {{ d.wide(0) }} as refused,
  cast(null as {{ d.type_instant() }}) as ran_at,
  {{ d.wide(0) }} as basis,
  {{ d.wide(0) }} as parked,
  cast(null as {{ d.type_text() }}) as plans,
  {{ d.wide(none) }} as counted,
  {{ d.wide(none) }} as counted_basis
{% endmacro %}

{% macro read_state() %}
{{ step("read the state", "rows") }}
select
  project, sync_id, sync_slug, generation, checkpoint, holder,
  {{ d.seconds_until("lease_until" | sql) }} as lease_seconds,
  delivering, delivering_table, delivering_store, delivering_run, delivering_shape, delivering_sent,
  {{ d.numbers_lost() }} as delivering_renumbered,
  due_before, target, definition, queried, doubts, rejections, refused,
  -{{ d.seconds_until("ran_at" | sql) }} as idle_seconds, basis, parked, plans,
  case when counted_basis = basis then counted end as counted
from {{ state }}
{% endmacro %}

{% macro take_lease() %}
{{ step("take the lease", "one row") }}
update {{ state }}
set generation = {{ generation }},
    checkpoint = 0,
    sync_slug = {{ sync_slug }},
    holder = {{ holder }},
    lease_until = {{ d.seconds_later(d.now(), lease_seconds) }}
where generation = {{ generation - 1 }}
{% if not replace_holder %}
  and (lease_until is null or lease_until < {{ d.now() }})
{% endif %}
{% endmacro %}

{# A renewal that was under way when the lease was given up must not take it again. #}
{% macro renew_lease() %}
{{ step("renew the lease", "one row") }}
update {{ state }}
set lease_until = {{ d.seconds_later(d.now(), lease_seconds) }}
where generation = {{ generation }} and holder is not null
{% endmacro %}

{# The snapshot's rows were counted, or added up, against this basis: whatever changes them moves it. #}
{% macro release_lease() %}
{{ step("release the lease", "one row") }}
update {{ state }}
set lease_until = null, holder = null{% if counted is not none %}, counted = {{ counted }}, counted_basis = basis{% endif %}{% if queried is not none %}, queried = {{ queried }}{% endif %}{% if ran %}, ran_at = {{ d.now() }}{% endif +%}
where generation = {{ generation }}
{% endmacro %}

{% macro relation_kind() %}
{{ step("look at the relation", "rows") }}
select count(*) as found, cast(coalesce(sum(case when {{ d.is_table() }} then 1 else 0 end), 0) as {{ d.type_bigint() }}) as tables
from information_schema.tables
where {{ d.is_relation() }}
{% endmacro %}
{% macro is_relation() %}table_name = {{ d.as_catalogued(table_name) }}{% if table_schema %} and table_schema = {{ d.as_catalogued(table_schema) }}{% else %}{{ d.where_unqualified() }}{% endif %}{% endmacro %}

{# A table, which has one state while a statement reads it, however often. #}
{% macro is_table() %}table_type = 'BASE TABLE'{% endmacro %}

{# Where names without a schema are looked up, if that is in one place. #}
{% macro where_unqualified() %}{% endmacro %}

{# The snapshot takes its types from the model: no type name is ever written. #}
{% macro create_tables() %}
{{ step("drop the old snapshot") }}
{{ d.drop(snapshot) }}
{{ step("create the snapshot") }}
create table {{ d.made(snapshot) }} as
select {% for c in all %}{{ c.name }}, {% endfor %}{{ d.wide(0) }} as _levin_generation
from {{ d.modelled() }} as m
where 1 = 0
{{ d.index_keys(snapshot, keys) }}
{{ step("drop the old doubts") }}
{{ d.drop(doubts) }}
{{ step("create the doubts") }}
create table {{ d.made(doubts) }} as
select {% for c in all %}{{ c.name }}, {% endfor %}{{ d.wide(0) }} as _levin_generation, cast('' as {{ d.type_text() }}) as _levin_operation, cast('' as {{ d.type_text() }}) as _levin_version
from {{ d.modelled() }} as m
where 1 = 0
{{ step("drop the old rejections") }}
{{ d.drop(rejections) }}
{{ step("create the rejections") }}
create table {{ d.made(rejections) }} as
select {% for c in keys %}{{ c.name }}, {% endfor %}{{ d.wide(0) }} as _levin_generation, {{ d.wide(0) }} as _levin_checkpoint,
  cast('' as {{ d.type_text() }}) as _levin_operation, cast('' as {{ d.type_text() }}) as _levin_code, cast('' as {{ d.type_text() }}) as _levin_reason,
  {{ d.wide(0) }} as _levin_attempts, {{ d.wide(0) }} as _levin_rows, {{ d.wide(0) }} as _levin_run,
  {{ d.wide(0) }} as _levin_sequence, cast('' as {{ d.type_text() }}) as _levin_fingerprint, 1 = 0 as _levin_parked,
  {{ d.now() }} as _levin_first_at, {{ d.now() }} as _levin_last_at
from {{ d.modelled() }} as m
where 1 = 0
{% endmacro %}

{# Columns that came, went or changed their type. A kept column takes the wider of its two types by
   standing in a union with the model; a column that came is null everywhere, so that every row in
   which it is not null differs; where the form on the wire changed, rows that held a value fall due. #}
{% macro reshape() %}
{{ step("write " ~ what ~ " in their new shape") }}
create table {{ d.made(reshaped) }} as
select {% for c in all %}m.{{ c.name }}, {% endfor %}{% for extra in extras %}{{ col("s", extra) }}{% if not loop.last %}, {% endif %}{% endfor +%}
from {{ d.modelled() }} as m, {{ table }} as s
where 1 = 0
union all
select {% for c in all %}{% if c.cast %}cast(s.{{ c.name }} as {{ c.cast }}){% elif c.kept %}s.{{ c.name }}{% else %}null{% endif %}, {% endfor %}
{% for extra in extras %}
{% if loop.first and due %}case when {% for c in due %}s.{{ c.name }} is not null{% if not loop.last %} or {% endif %}{% endfor %} then 0 else {{ col("s", extra) }} end{% else %}{{ col("s", extra) }}{% endif %}{% if not loop.last %}, {% endif %}
{% endfor %}

from {{ table }} as s
{% if key_cast %}
{{ step("keys stay one to one", "rows") }}
select count(*) as found, {{ d.distinct_keys(keys) }} as kept
from {{ reshaped }}
{% endif %}
{% if index %}{{ d.index_keys(reshaped, keys) }}{% endif %}
{% endmacro %}

{% macro put_in_place() %}
{{ step("drop the old shape") }}
{{ d.drop(table) }}
{{ step("put the new shape in its place") }}
{{ d.rename(reshaped, table) }}
{% endmacro %}

{# What a run says of its sync, once what it stands for holds: written with a change of shape. #}
{% macro define() %}
{{ step("write the definition", "one row") }}
update {{ state }}
set definition = {{ definition }}, target = {{ target }}, due_before = {{ due_before }}, basis = {{ generation }}
where generation = {{ generation }}
{% endmacro %}

{# A delivery that went into tables that are no more is nobody's to settle. #}
{% macro forget_delivery() %}
{{ step("forget the delivery", "one row") }}
update {{ state }}
set delivering = null, delivering_table = null, delivering_shape = null, delivering_sent = null, delivering_store = null, delivering_run = null
where generation = {{ generation }}
{% endmacro %}

{# The destination may have been emptied since: it would take what it once had for a repeat, and leave it out. #}
{% macro renew_versions() %}
{% set renewed %}'.{{ generation }}'{% endset %}
{{ step("give what is in doubt other versions") }}
update {{ doubts }}
set _levin_version = {{ d.joined("_levin_version" | sql, renewed) }}
where _levin_version is not null
{% endmacro %}

{# The snapshot as it is, to be described. #}
{% macro snapshot_rows() %}
{{ step("the snapshot", "rows") }}
select * from {{ snapshot }}
{% endmacro %}

{# The model as it is, to be described. #}
{% macro model_rows() %}
{{ step("the model", "rows") }}
select * from (
{{ model }}
) as m
{% endmacro %}

{# What an owner runs once, so that levin reads the models and writes only its own schemas: these are made here, or
   levin may make them itself. #}
{% macro grants() %}
{% if creates %}{{ d.grant_creating() }}{% else %}{{ d.grant_schemas() }}{% endif %}
{{ d.grant_models() }}
{% endmacro %}
{% macro grant_creating() %}{% endmacro %}
{% macro grant_schemas() %}{% endmacro %}
{% macro grant_models() %}{% endmacro %}

{# What an owner runs when a model may not be read. #}
{% macro grant_read() %}{% endmacro %}

