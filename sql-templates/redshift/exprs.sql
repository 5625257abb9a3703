{# `text` is a varchar of 256 bytes here. #}
{% macro type_text() %}varchar(65535){% endmacro %}
{# current_timestamp is known to the leader node alone, and this stands still for no longer than a statement. Sessions are in UTC. #}
{% macro now() %}cast(getdate() as timestamp with time zone){% endmacro %}
{% macro seconds_until(instant) %}cast(datediff(millisecond, {{ d.now() }}, {{ instant }}) as double precision) / 1000{% endmacro %}

{# Spaces at the end count among bytes, and so does case. #}
{% macro exact_text(value) %}to_varbyte({{ d.text(value) }}, 'utf8'){% endmacro %}
{% macro trimmed(value) %}rtrim({{ value }}, ' '){% endmacro %}
{# No boolean can be cast to text. #}
{% macro truth_text(value) %}case when {{ value }} then 'true' when not {{ value }} then 'false' end{% endmacro %}
{% macro double(value) %}cast({{ value }} as double precision){% endmacro %}
{% macro plain_zero(value) %}case when {{ value }} = 0 then 0 else {{ value }} end{% endmacro %}
{% macro hex_text(value) %}from_varbyte({{ value }}, 'hex'){% endmacro %}
{# JSON as text in UTF-8: a text ends at 65,535 bytes, a document has up to sixteen megabytes. Without the condition no
   document would be the document `null`. #}
{% macro json_bytes(value) %}case when {{ value }} is not null then json_serialize_to_varbyte({{ value }}) end{% endmacro %}
{# Of a document that is no text, its length: this stands in fingerprints alone. #}
{% macro json_text(value) %}case when {{ value }} is null then null when json_size({{ value }}) > 65535 then {{ d.text(d.size_of(value)) }} else json_serialize({{ value }}) end{% endmacro %}
{% macro size_of(value) %}json_size({{ value }}){% endmacro %}
{% macro geometry_text(value) %}st_asewkt({{ value }}){% endmacro %}
{% macro bytes_of(literal) %}to_varbyte({{ literal }}, 'base64'){% endmacro %}
{% macro digest(value) %}sha2({{ value }}, 256){% endmacro %}

{# Two values, and never unknown. There is no `is distinct from`. #}
{% macro differs(column, left, right) %}
{% set l = d.comparable(column, left) %}
{% set r = d.comparable(column, right) %}
(coalesce({{ l }} <> {{ r }}, false) or ({{ left }} is null and {{ right }} is not null) or ({{ left }} is not null and {{ right }} is null))
{% endmacro %}
{% macro same(left, right) %}(coalesce({{ left }} = {{ right }}, false) or ({{ left }} is null and {{ right }} is null)){% endmacro %}
{# No row is a value here. #}
{% macro distinct_keys(keys) %}
(select count(*) from (select distinct {% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %} from {{ reshaped }}) as k)
{% endmacro %}

{# A literal's type is as long as the literal. #}
{% macro roomy(value) %}{{ d.text(value) }}{% endmacro %}
{% macro create_once() %}create table{% endmacro %}
{# A deletion knows its table by its own name alone. #}
{% macro delete_from(table) %}delete from {{ table }}{% endmacro %}
{% macro deleted(table) %}{{ table.name }}{% endmacro %}
