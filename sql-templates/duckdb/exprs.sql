{% macro now() %}get_current_timestamp(){% endmacro %}

{% macro json_text(value) %}cast(to_json({{ value }}) as text){% endmacro %}
{# JSON is text here; this takes away what white space and escapes say. A variant would compare objects
   whatever the order of their keys, but loses digits, takes JSON's null for SQL's, and fails where two
   values have different types. #}
{% macro json_value(value) %}json({{ value }}){% endmacro %}
{# ISO 8601 from the three parts in which DuckDB keeps an interval: months, days, microseconds. #}
{% macro iso_interval(value) %}
'P' || (datepart('year', {{ value }}) * 12 + datepart('month', {{ value }})) || 'M' || datepart('day', {{ value }}) || 'DT' || rtrim(rtrim(printf('%.6f', epoch(to_microseconds(datepart('hour', {{ value }}) * 3600000000 + datepart('minute', {{ value }}) * 60000000 + datepart('microsecond', {{ value }})))), '0'), '.') || 'S'
{% endmacro %}
