{% macro type_bigint() %}int64{% endmacro %}
{% macro type_text() %}string{% endmacro %}
{% macro type_instant() %}timestamp{% endmacro %}

{% macro now() %}current_timestamp(){% endmacro %}
{% macro seconds_later(instant, seconds) %}timestamp_add({{ instant }}, interval {{ seconds }} second){% endmacro %}
{% macro seconds_until(instant) %}(timestamp_diff({{ instant }}, {{ d.now() }}, microsecond) / 1000000){% endmacro %}

{# Not every type can be cast to text; all of them can be written as JSON, where null is a text. #}
{% macro text(value) %}if({{ value }} is null, null, to_json_string({{ value }})){% endmacro %}
{% macro plain_text(value) %}cast({{ value }} as string){% endmacro %}
{# Without the collation that its column may have; no text is written as null is. #}
{% macro exact_text(value) %}to_json_string({{ value }}){% endmacro %}
{# A table holds no null list, only empty ones. #}
{% macro list_text(value) %}to_json_string(ifnull({{ value }}, [])){% endmacro %}
{% macro shape_text(value) %}st_astext({{ value }}){% endmacro %}
{% macro value_of(column, literal) %}{% if column.binary %}from_base64({{ literal }}){% elif column.wire in ("text", "list_text") %}parse_json({{ literal }}){% else %}cast({{ literal }} as {{ column.type }}){% endif %}{% endmacro %}

{# One value for `in`, whose subquery may have one column. #}
{% macro whole_key(keys, alias) %}
{% if keys | length > 1 %}struct({% endif %}{% for key in keys %}{{ col(alias, key.name) }}{% if not loop.last %}, {% endif %}{% endfor %}{% if keys | length > 1 %}){% endif %}
{% endmacro %}
{% macro listed_key(alias) %}{{ d.whole_key(keys, alias) }}{% endmacro %}
{% macro distinct_keys(keys) %}
count(distinct {% if keys | length > 1 %}to_json_string(struct({% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %})){% else %}{{ keys[0].name }}{% endif %})
{% endmacro %}

{% macro pack(all, alias, snapshot) %}
struct({% for c in all %}{{ col(alias, c.name) }} as {{ c.name }}{% if not loop.last %}, {% endif %}{% endfor %})
{% endmacro %}
{# Its rows leave in ranges of their numbers, each of which would read all of it. #}
{% macro made_diff() %}{{ d.made(diff) }} cluster by _levin_sequence{% endmacro %}
{% macro digest(value) %}to_hex(sha256({{ value }})){% endmacro %}

{# A delete says which rows, and a condition is put to rows of something. #}
{% macro empty(table) %}delete from {{ table }} where true{% endmacro %}
{% macro no_rows() %}
from (select 1 as one) as nothing
where false
{% endmacro %}
