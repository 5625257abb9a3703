{% macro type_instant() %}timestamp_tz{% endmacro %}
{% macro seconds_until(instant) %}cast(datediff('millisecond', {{ d.now() }}, {{ instant }}) / 1000 as float){% endmacro %}

{% macro json_text(value) %}to_json({{ value }}){% endmacro %}
{% macro geo_text(value) %}to_json(st_asgeojson({{ value }})){% endmacro %}
{% macro vector_text(value) %}to_json(cast({{ value }} as array)){% endmacro %}
{# A comparison without a collation. #}
{% macro exact_text(value) %}collate({{ value }}, ''){% endmacro %}

{% macro digest(value) %}sha2({{ value }}, 256){% endmacro %}
{% macro bytes_of(literal) %}base64_decode_binary({{ literal }}){% endmacro %}

{# A literal's type is as long as the literal. #}
{% macro roomy(value) %}{{ d.text(value) }}{% endmacro %}

{# Nobody needs these again: no copies of them are kept for recovery. #}
{% macro create_scratch() %}create transient table{% endmacro %}
{# A name without a schema would be one in the session's schema. #}
{% macro rename(table, to) %}alter table {{ table }} rename to {{ to }}{% endmacro %}

{# No row is a value here. #}
{% macro distinct_keys(keys) %}count(distinct {% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %}){% endmacro %}
{# A number needs an order, and any will do. #}
{% macro number_here() %}, row_number() over (order by null) as _levin_sequence{% endmacro %}
{% macro create_of_run() %}create transient table{% endmacro %}
