{# One call, however many columns: an expression may not be nested deeper than 1,000 times. #}
{% macro marks() %}
concat({% for c in columns %}{{ d.mark(c) }}{% if not loop.last +%}
      , {% endif %}{% endfor %})
{% endmacro %}
