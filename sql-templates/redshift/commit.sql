{# No row is a value here, to stand on the left of `in`. #}
{% macro is_taken_out(known) %}
exists (
  select 1 from {{ diff }} as f
  where {{ d.same_key(keys, "f", known) }} and ({{ d.takes_out() }})
)
{% endmacro %}
{# A text has at most 65,535 bytes, so each value stands in it as a digest of its own. #}
{% macro fingerprint_values(row) %}
{% for c in columns %}coalesce({{ d.digest(d.apart(c, col(row, c.name))) }}, '-'){% if not loop.last %} || {% endif %}{% endfor %}{% if not columns %}''{% endif +%}
{% endmacro %}
