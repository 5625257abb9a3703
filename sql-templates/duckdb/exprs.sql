{% macro pack(all, alias, snapshot) %}
struct_pack({% for c in all %}{{ c.name }} := {{ col(alias, c.name) }}{% if not loop.last %}, {% endif %}{% endfor %})
{% endmacro %}
{% macro now() %}get_current_timestamp(){% endmacro %}

{# Where all digits stand behind the point, `decimal(3, 3)`, DuckDB writes none before it: `.125`, which is no number
   to anybody else. #}
{% macro decimal_text(value) %}case when starts_with({{ d.text(value) }}, '.') or starts_with({{ d.text(value) }}, '-.') then replace({{ d.text(value) }}, '.', '0.') else {{ d.text(value) }} end{% endmacro %}
{% macro json_text(value) %}cast(to_json({{ value }}) as text){% endmacro %}
{# JSON is text here; this takes away what white space and escapes say. A variant would compare objects
   whatever the order of their keys, but loses digits, takes JSON's null for SQL's, and fails where two
   values have different types. #}
{% macro json_value(value) %}json({{ value }}){% endmacro %}
{# ISO 8601 as PostgreSQL writes it, without parts that are zero. DuckDB keeps months, days and
   microseconds; a null part makes the whole null. #}
{% macro iso_part(value, part, unit) %}case datepart('{{ part }}', {{ value }}) when 0 then '' else datepart('{{ part }}', {{ value }}) || '{{ unit }}' end{% endmacro %}
{% macro iso_interval(value) %}
upper(regexp_replace('P' || {{ d.iso_part(value, "year" | sql, "y" | sql) }} || {{ d.iso_part(value, "month" | sql, "m" | sql) }} || {{ d.iso_part(value, "day" | sql, "d" | sql) }}
  || case when datepart('hour', {{ value }}) = 0 and datepart('minute', {{ value }}) = 0 and datepart('microsecond', {{ value }}) = 0 then ''
    else 'T' || {{ d.iso_part(value, "hour" | sql, "h" | sql) }} || {{ d.iso_part(value, "minute" | sql, "m" | sql) }}
      || case datepart('microsecond', {{ value }}) when 0 then ''
        else rtrim(rtrim(printf('%.6f', datepart('microsecond', {{ value }}) / 1000000), '0'), '.') || 'S' end end, '^P$', 'PT0S'))
{% endmacro %}
