{# One call, however many columns: an expression may not be nested deeper than 1,000 times. #}
{% macro marks() %}
concat({% for c in columns %}{{ d.mark(c) }}{% if not loop.last +%}
      , {% endif %}{% endfor %})
{% endmacro %}
{% macro fingerprint_values(row) %}
concat({% for c in columns %}{{ d.measured(col(row, c.name)) }}{% if not loop.last %}, {% endif %}{% endfor %}{% if not columns %}''{% endif %})
{% endmacro %}
