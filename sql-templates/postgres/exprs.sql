{# current_timestamp stands still inside a transaction; a lease must not. #}
{% macro now() %}clock_timestamp(){% endmacro %}

{% macro json_text(value) %}to_jsonb({{ value }})::text{% endmacro %}
{# Not every element type has an equality (json), nor one that tells all forms apart (interval). #}
{% macro json_list(value) %}to_jsonb({{ value }}){% endmacro %}
{% macro json_value(value) %}{{ value }}::jsonb{% endmacro %}
{# 1.0 and 1.00 are equal. #}
{% macro trim_scale(value) %}trim_scale({{ value }}){% endmacro %}
{# Some collations call different texts equal. #}
{% macro exact_text(value) %}{{ value }} collate "C"{% endmacro %}
{# Sessions set intervalstyle = iso_8601. #}
{% macro iso_interval(value) %}{{ value }}::text{% endmacro %}

{# A composite column counts as one of the 1,600 that a table can have. #}
{% macro pack(all, alias, snapshot) %}
row({% for c in all %}{{ col(alias, c.name) }}, {% endfor %}null)::{{ snapshot }}
{% endmacro %}
{% macro unpack(packed, column) %}({{ packed }}).{{ column.name }}{% endmacro %}

{% macro create_scratch() %}create unlogged table{% endmacro %}
{% macro index_keys(table, keys) %}
{{ step("index the keys") }}
create unique index on {{ table }} ({% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %})
{% endmacro %}
{# No join of both sides uses several processes, but two of them side by side do. The server takes every row for a
   difference, and would rather not hand so many on; but were it to use its processes for the scans below the
   joins, it would have none left for these. The middle is known before the statement, which a
   subquery in it would not be. Any value would do; a good one gives both as much to do. #}
{% macro prepare_halves() %}
{{ step("let two processes compare") }}
set local parallel_tuple_cost = 0
{{ step("and none of them scan") }}
set local min_parallel_table_scan_size = '5TB'
{{ step("find the middle of the keys") }}
select set_config('levin.middle', coalesce(
  (select percentile_disc(0.5) within group (order by s.{{ keys[0].name }}) from {{ snapshot }} as s tablesample system (1)),
  0
)::text, true)
{% endmacro %}
{% macro forget_halves() %}
{{ step("let processes scan again") }}
set local min_parallel_table_scan_size to default
{% endmacro %}
{% macro middle_key() %}current_setting('levin.middle')::{{ middle | sql }}{% endmacro %}
{% macro join_hint(sorted) %}
{% if sorted %}
{{ step("prefer the merge join") }}
set local enable_hashjoin = off
{% endif %}
{% endmacro %}
{# `previous` in a diff table has the snapshot's row type; whoever drops the snapshot means it. #}
{% macro drop(table) %}drop table if exists {{ table }} cascade{% endmacro %}

{# Rows come as they were written, in the order of their sequence, and sorting them again would take
   longer than reading them: the driver's sessions have neither parallel workers nor synchronized scans.
   A join keeps no order. #}
{% macro in_sequence() %}{% if waits %}order by {{ d.row_id("d") }}{% endif %}{% endmacro %}

{# A row's place in its table: 32 bits of page and 16 bits of item. #}
{% macro sequence(alias) %}('x' || encode(tidsend({{ d.row_id(alias) }}), 'hex'))::bit(48)::bigint{% endmacro %}
{% macro leaving_sequence(alias) %}{{ d.row_id(alias) }}{% endmacro %}
{% macro row_id_of(number) %}
{% if number is not integer %}('(' || ({{ number }} >> 16)::text || ',' || ({{ number }} & 65535)::text || ')')::tid{% elif number < 0 %}'(0,0)'::tid{% else %}'({{ number // 65536 }},{{ number % 65536 }})'::tid{% endif -%}
{% endmacro %}
{# `vacuum full` and `cluster` write a table anew, into another file and with other places for its rows. #}
{% macro file_of(name) %}(
    select pg_relation_filenode(c.oid)::text
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = {{ planner_literal }} and c.relname = {{ name }}
  ){% endmacro %}
{% macro numbers() %}{{ d.file_of(diff_name) }}{% endmacro %}
{% macro numbers_lost() %}coalesce(delivering_numbers <> {{ d.file_of("delivering_table" | sql) }}, false){% endmacro %}
{% macro hold_numbers() %}
{% if not renumbered %}
{{ step("hold the rows where they are") }}
lock table {{ diff }} in access share mode
{% endif %}
{{ step("the rows are where they were", "one row") }}
update {{ state }}
set delivering_numbers = {% if last %}null{% else %}delivering_numbers{% endif +%}
where generation = {{ generation }}{% if not renumbered %} and (delivering_numbers is null or delivering_numbers = {{ d.file_of(diff_name) }}){% endif +%}
{% endmacro %}

{# Text need not be valid in the database's encoding, so it is not converted. #}
{% macro digest(value) %}encode(sha256(convert_to({{ value }}, getdatabaseencoding())), 'hex'){% endmacro %}
{% macro bytes_of(literal) %}decode({{ literal }}, 'base64'){% endmacro %}
