{# How often each column changed; one row, a number per column; nothing for a sync of keys alone. #}
{% macro changed_columns() %}
{% if columns %}
{{ step("count the changed columns", "rows") }}
select {% for c in columns %}cast(coalesce(sum(case when {{ d.character("_levin_changed" | sql, loop.index) }} = '1' then 1 else 0 end), 0) as {{ d.type_bigint() }}) as n{{ loop.index0 }}{% if not loop.last %}, {% endif %}{% endfor +%}
from {{ diff }}
where _levin_operation = 'changed'
{% endif %}
{% endmacro %}

{# What became of the claims on matching values. *Superseded* stands on removals only. #}
{% macro claims() %}
{{ step("count the claims", "rows") }}
select _levin_claim, {% if shape == "full" %}_levin_operation{% else %}'added' as _levin_operation{% endif %}, count(*) as claims
from {{ diff }}
where _levin_claim is not null
group by _levin_claim{% if shape == "full" %}, _levin_operation{% endif +%}
{% endmacro %}

{# The plans that are kept: whoever has moved the basis since has made all of them stale. #}
{% macro keep_plans() %}
{{ step("keep the plans", "one row") }}
update {{ state }}
set plans = {{ plans }}
where generation = {{ generation }}
{% endmacro %}

{# A few rows of one operation, as they would be sent. #}
{% macro samples() %}
{{ step("sample " ~ operation, "rows") }}
{{ d.delivered_rows() }}
{% endmacro %}

{% macro set_aside_samples() %}
{{ step("sample the keys set aside", "rows") }}
select {% for key in keys %}{{ d.wire_key(key, col("a", key.name)) }} as k{{ loop.index0 }}, {% endfor %}_levin_rows, _levin_code
from {{ set_aside }} as a
order by _levin_rows desc
limit {{ limit }}
{% endmacro %}

{# The model's own rows, for a person to look at. #}
{% macro preview() %}
{{ step("preview", "rows") }}
select {% for c in all %}{{ d.wire(c, col("m", c.name)) }} as c{{ loop.index0 }}{% if not loop.last %}, {% endif %}{% endfor +%}
from (
{{ model }}
) as m
limit {{ limit }}
{% endmacro %}
