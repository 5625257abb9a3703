{% macro type_bigint() %}signed{% endmacro %}
{# So long that a column made of it takes any text. #}
{% macro type_text() %}char(16777216){% endmacro %}
{% macro type_instant() %}datetime(6){% endmacro %}
{# A column is as wide as the values that it may get, and a cast says nothing of those. #}
{% macro wide(number) %}case when 1 = 0 then 9223372036854775807 else {% if number is none %}null{% else %}{{ number }}{% endif %} end{% endmacro %}
{% macro text(value) %}cast({{ value }} as char){% endmacro %}
{# Bytes that are no text lose their difference in a cast to text. #}
{% macro told_apart(value) %}concat(cast({{ value }} as char), ' ', hex({{ value }})){% endmacro %}
{% macro joined(left, right) %}concat({{ left }}, {{ right }}){% endmacro %}
{% macro marks() %}
concat({% for c in columns %}{{ d.mark(c) }}{% if not loop.last +%}
      , {% endif %}{% endfor %})
{% endmacro %}
{% macro fingerprint_text(row) %}
concat({{ definition }}, {% if shape == "full" %}case when {{ col(row, "_levin_operation") }} = 'removed' then concat('removed'{% for c in matching %}, {% set claim %}{{ row | sql }}._levin_match{{ loop.index0 }}{% endset %}{{ d.measured(claim) }}{% endfor %}) else concat({{ col(row, "_levin_operation") }}, {{ d.fingerprint_values(row) }}) end{% else %}'added', {{ d.fingerprint_values(row) }}{% endif %})
{% endmacro %}
{% macro fingerprint_values(row) %}
concat(''{% for c in columns %}, {{ d.measured(col(row, c.name)) }}{% endfor %})
{% endmacro %}

{# Sessions are in UTC. #}
{% macro now() %}now(6){% endmacro %}
{% macro instant(literal) %}cast(replace(replace({{ literal }}, 'T', ' '), 'Z', '') as datetime(6)){% endmacro %}
{% macro seconds_later(instant, seconds) %}{{ instant }} + interval {{ seconds }} second{% endmacro %}
{% macro seconds_until(instant) %}cast(timestampdiff(microsecond, {{ d.now() }}, {{ instant }}) as double) / 1000000{% endmacro %}

{% macro differs(column, left, right) %}not ({{ d.comparable(column, left) }} <=> {{ d.comparable(column, right) }}){% endmacro %}
{% macro same(left, right) %}{{ left }} <=> {{ right }}{% endmacro %}
{# Most collations call different texts equal, and do not count spaces at the end. #}
{% macro exact_text(value) %}{{ value }} collate utf8mb4_nopad_bin{% endmacro %}
{% macro number_of_bits(value) %}{{ value }} + 0{% endmacro %}
{# As text, a float has six digits. #}
{% macro double(value) %}cast({{ value }} as double){% endmacro %}
{% macro plain_zero(value) %}case when {{ value }} = 0 then 0 else {{ d.double(value) }} end{% endmacro %}
{% macro geometry_text(value) %}st_astext({{ value }}){% endmacro %}
{% macro distinct_keys(keys) %}
count(distinct {% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %})
{% endmacro %}
{% macro digest(value) %}sha2({{ value }}, 256){% endmacro %}

{% macro exact_name(name) %}cast({{ name }} as binary){% endmacro %}
{# A deletion that has an alias may not look at its own table, but at what is made of it. #}
{% macro delete_from(table) %}delete t from {{ table }} as t{% endmacro %}
{% macro as_it_was(table) %}(select * from {{ table }} limit 18446744073709551615){% endmacro %}
{# Without its schema the new name would belong to the session's own. #}
{% macro rename(table, to) %}rename table {{ table }} to {{ to }}{% endmacro %}
{% macro index_keys(table, keys) %}
{% if not (keys | selectattr("unbounded") | list) %}
{{ step("index the keys") }}
alter table {{ table }} add unique ({% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %})
{% endif %}
{% endmacro %}
