{# There is no full join: the rows of the model with what is known of them, and what is known and no longer there. #}
{% macro differences() %}
select w.*{% if not matching %}{{ d.number_here() }}{% endif +%}
from (
{{ d.differences_in("model") }}
union all
{{ d.differences_in("known") }}
) as w
{% endmacro %}
{% macro number_of_side() %}{% endmacro %}
{% macro both_sides(half) %}
{% if half == "model" %}
{{ d.model_side(none) }} as m
left join {{ d.known_side(none) }} as k on {{ d.same_key(keys, "m", "k") }}
{% else %}
{{ d.known_side(none) }} as k
left join {{ d.model_side(none) }} as m on {{ d.same_key(keys, "m", "k") }}
{% endif %}
{% endmacro %}
{% macro side_counts(half) %}{% if half == "known" %}m.{{ keys[0].name }} is null and {% endif %}{% endmacro %}

{# Texts are compared byte by byte wherever they come from. #}
{% macro modelled() %}
(
  select {% for c in all %}{% if c.comparable == "exact_text" %}{% set converted %}convert({{ col("r", c.name) }} using utf8mb4){% endset %}{{ d.exact_text(converted) }} as {{ c.name }}{% else %}{{ col("r", c.name) }}{% endif %}{% if not loop.last %}, {% endif %}{% endfor +%}
  from (
{{ model }}
  ) as r
)
{% endmacro %}
{% macro take_columns() %}
{{ step("take new columns as accepted") }}
update {{ snapshot }} as t
join {{ d.source() }} as m on {{ d.same_key(keys, "m", "t") }}
set {% for c in taken %}{{ col("t", c.name) }} = {{ col("m", c.name) }}{% if not loop.last %}, {% endif %}{% endfor +%}
where ({% for c in taken %}{{ col("m", c.name) }} is not null{% if not loop.last %} or {% endif %}{% endfor %})
{% if set_aside %}
  and not {{ d.is_set_aside("t") }}
{% endif %}
{% endmacro %}
{# The column is as wide as the longest word that it was made of. #}
{% macro park() %}
{{ step("make room for longer words") }}
alter table {{ diff }} modify _levin_operation varchar(30) character set utf8mb4 collate utf8mb4_nopad_bin
{{ step("park rows that were refused too often") }}
update {{ diff }} as f
set _levin_operation = {{ d.parked_word("f") }}
where exists (select 1 from {{ rejections }} as r where {{ d.is_parked("f") }})
{% endmacro %}
