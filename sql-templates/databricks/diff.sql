{# An update reads no other table; a merge does. A key that comes twice has no value of its own. #}
{% macro take_columns() %}
{{ step("take new columns as accepted") }}
merge into {{ snapshot }} as t
using (
  select {% for key in keys %}{{ col("m", key.name) }}, {% endfor %}{% for c in taken %}any_value({{ col("m", c.name) }}) as {{ c.name }}{% if not loop.last %}, {% endif %}{% endfor +%}
  from {{ d.source() }} as m
  group by {% for key in keys %}{{ col("m", key.name) }}{% if not loop.last %}, {% endif %}{% endfor +%}
  having count(*) = 1
) as m on {{ d.same_key(keys, "m", "t") }}
  and ({% for c in taken %}{{ col("m", c.name) }} is not null{% if not loop.last %} or {% endif %}{% endfor %})
when matched then update set {% for c in taken %}{{ c.name }} = {{ col("m", c.name) }}{% if not loop.last %}, {% endif %}{% endfor +%}
{% endmacro %}
