{% macro type_text() %}string{% endmacro %}
{% macro type_instant() %}timestamp{% endmacro %}
{% macro seconds_later(instant, seconds) %}{{ instant }} + interval '{{ seconds }}' second{% endmacro %}
{% macro seconds_until(instant) %}cast(unix_micros({{ instant }}) - unix_micros({{ d.now() }}) as double) / 1000000{% endmacro %}

{# Written as JSON, null fields are left out and timestamps have three digits, unless one says otherwise. #}
{% macro json_form() %}map('ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSSXXX', 'timestampNTZFormat', 'yyyy-MM-dd\'T\'HH:mm:ss.SSSSSS'){% endmacro %}
{% macro json_text(value) %}to_json({{ value }}, {{ d.json_form() }}){% endmacro %}
{% macro variant_text(value) %}to_json({{ value }}){% endmacro %}
{# Lists, structs and maps as text do not say where one value ends. #}
{% macro told_apart(value) %}case when {{ value }} is not null then to_json(struct({{ value }} as v), {{ d.json_form() }}) end{% endmacro %}
{# A comparison without a collation. #}
{% macro exact_text(value) %}collate({{ value }}, 'UTF8_BINARY'){% endmacro %}
{% macro plain_zero(value) %}case when {{ value }} = 0 then 0 else {{ value }} end{% endmacro %}

{% macro digest(value) %}sha2({{ value }}, 256){% endmacro %}
{% macro bytes_of(literal) %}unbase64({{ literal }}){% endmacro %}
{% macro value_of(column, literal) %}{% if column.binary %}{{ d.bytes_of(literal) }}{% elif column.wire %}parse_json({{ literal }}){% else %}cast({{ literal }} as {{ column.type }}){% endif %}{% endmacro %}

{% macro distinct_keys(keys) %}count(distinct {% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %}){% endmacro %}
{% macro pack(all, alias, snapshot) %}
struct({% for c in all %}{{ col(alias, c.name) }} as {{ c.name }}{% if not loop.last %}, {% endif %}{% endfor %})
{% endmacro %}

{# Numbers that each worker gives its own rows: they have gaps, and nobody waits for another. #}
{% macro number_here() %}, monotonically_increasing_id() as _levin_sequence{% endmacro %}

{# Only tables whose commits the catalog keeps can be written in one block, and only one with column mapping has
   columns of any name. #}
{% macro made(table) %}{{ table }} tblproperties ('delta.feature.catalogManaged' = 'supported', 'delta.columnMapping.mode' = 'name'){% endmacro %}
{# A name without a schema would be one in the session's schema. #}
{% macro rename(table, to) %}alter table {{ table }} rename to {{ to }}{% endmacro %}
