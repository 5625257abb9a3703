{# Said durably before the first request leaves: which table, which notes. From here on whoever
   finds the run dead must settle it. #}
{% macro begin_delivery() %}
{{ step("begin the delivery", "one row") }}
update {{ state }}
set delivering = {{ generation }},
    delivering_table = {{ diff_name }},
    delivering_shape = {{ delivering_shape }},
    delivering_sent = {{ delivering_sent }},
    ran_at = {{ d.now() }},
    delivering_store = {{ store }},
    delivering_run = {{ run }},
    delivering_numbers = {{ d.numbers() }},
    due_before = {{ due_before }},
    basis = {{ generation }}
where generation = {{ generation }}
{% endmacro %}

{# One row for a person to look at, as `deliver` gives it: of the model, or of the snapshot for one that is
   removed; with other values where somebody asked for them. Two rows say that the key is none. #}
{% macro test_row() %}
{{ step("look at the row", "rows") }}
select cast(1 as {{ d.type_bigint() }}) as _levin_sequence, {% if known %}case when k.{{ keys[0].name }} is null then {{ every_mark }} else {% if columns %}{{ d.marks() }}{% else %}{{ no_mark }}{% endif %} end{% else %}{{ every_mark }}{% endif %} as _levin_changed, {{ version }} as _levin_version{% if matching %}, cast(null as {{ d.type_text() }}) as _levin_claim{% endif +%}
{% for key in keys %}
  , {{ d.wire_key(key, col("m", key.name)) }} as k{{ loop.index0 }}
{% endfor %}
{% for c in columns %}
  , {{ d.wire(c, col("m", c.name)) }} as c{{ loop.index0 }}
{% endfor %}
{% for c in previous %}
  , {% if known %}{{ d.wire(c, col("k", c.name)) }}{% else %}{{ d.wire(c, col("m", c.name)) }}{% endif %} as p{{ loop.index0 }}
{% endfor %}
from (
  select {% for c in all %}{% if sets[loop.index0] is not none %}{{ d.value_of(c, sets[loop.index0]) }}{% else %}{{ col("r", c.name) }}{% endif %} as {{ c.name }}{% if not loop.last %}, {% endif %}{% endfor +%}
  from {% if from_snapshot %}{{ snapshot }}{% else %}(
{{ model }}
  ){% endif %} as r
  where {% for key in keys %}{{ col("r", key.name) }} = {{ d.value_of(key, key_values[loop.index0]) }}{% if not loop.last %} and {% endif %}{% endfor +%}
  limit 2
) as m
{% if known %}
{{ d.join_known() }}
{% endif %}
{% endmacro %}
{# What the snapshot has of the row that was asked for. #}
{% macro join_known() %}
left join {{ snapshot }} as k on {% for key in keys %}{{ col("k", key.name) }} = {{ d.value_of(key, key_values[loop.index0]) }}{% if not loop.last %} and {% endif %}{% endfor +%}
{% endmacro %}

{# The destination was emptied: nothing that it once accepted, or may have, is there any more. #}
{% macro forget_accepted() %}
{{ step("forget what was accepted") }}
{{ d.empty(snapshot) }}
{{ step("forget what was in doubt") }}
{{ d.empty(doubts) }}
{{ step("nothing is in doubt", "one row") }}
update {{ state }}
set doubts = 0
where generation = {{ generation }}
{% endmacro %}

{# The rows of one operation. Engines that read in pages ask with `after` and `through`. #}
{% macro deliver() %}
{{ step("deliver " ~ operation, "rows") }}
{{ d.delivered_rows() }}
{% endmacro %}
