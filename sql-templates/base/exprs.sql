{# What a dialect may say in its own way. Each macro is found along the chain dialect -> parent -> base,
   and macros call each other through `d`, so a replaced one is seen by all. #}

{# ---- names of types ---- #}
{% macro type_bigint() %}bigint{% endmacro %}
{% macro type_text() %}text{% endmacro %}
{% macro type_instant() %}timestamp with time zone{% endmacro %}
{# A number of a table's new column: wide enough, whatever it begins with. #}
{% macro wide(number) %}cast({% if number is none %}null{% else %}{{ number }}{% endif %} as {{ d.type_bigint() }}){% endmacro %}

{# ---- time ---- #}
{% macro now() %}current_timestamp{% endmacro %}
{# An instant from its text in ISO 8601, in UTC. #}
{% macro instant(literal) %}cast({{ literal }} as {{ d.type_instant() }}){% endmacro %}
{% macro seconds_later(instant, seconds) %}{{ instant }} + interval '{{ seconds }} seconds'{% endmacro %}
{% macro seconds_until(instant) %}cast(extract(epoch from ({{ instant }} - {{ d.now() }})) as double precision){% endmacro %}

{# ---- what Arrow carries, by the names that dialect.toml uses ---- #}
{% macro text(value) %}cast({{ value }} as {{ d.type_text() }}){% endmacro %}
{# … and a text that differs when the value does. #}
{% macro told_apart(value) %}{{ d.text(value) }}{% endmacro %}
{% macro wire(column, value) %}{% if column.wire %}{{ d.apply(column.wire, value) }}{% else %}{{ value }}{% endif %}{% endmacro %}
{# Keys that are equal have one text, or a destination would take them for two. #}
{% macro one_text(key, value) %}{% if key.one_text %}{{ d.apply(key.one_text, value) }}{% else %}{{ value }}{% endif %}{% endmacro %}
{# A text that differs when the value of a column does. #}
{% macro apart(column, value) %}{% if column.as_text %}{{ d.apply(column.as_text, value) }}{% else %}{{ d.told_apart(value) }}{% endif %}{% endmacro %}
{% macro wire_key(key, value) %}{{ d.wire(key, d.one_text(key, value)) }}{% endmacro %}
{% macro plain_zero(value) %}case when {{ value }} = 0 then '0' else {{ value }} end{% endmacro %}

{# ---- equality ---- #}
{% macro comparable(column, value) %}{% if column.comparable %}{{ d.apply(column.comparable, value) }}{% else %}{{ value }}{% endif %}{% endmacro %}
{% macro differs(column, left, right) %}{{ d.comparable(column, left) }} is distinct from {{ d.comparable(column, right) }}{% endmacro %}
{% macro same(left, right) %}{{ left }} is not distinct from {{ right }}{% endmacro %}
{% macro same_key(keys, left, right) %}
{% for key in keys %}{{ col(left, key.name) }} = {{ col(right, key.name) }}{% if not loop.last %} and {% endif %}{% endfor %}
{% endmacro %}
{# The key as one value, for `in`: engines join that at once where they take an `exists` apart first. And the keys among
   which it is, as a select lists them. #}
{% macro whole_key(keys, alias) %}
{% if keys | length > 1 %}({% endif %}{% for key in keys %}{{ col(alias, key.name) }}{% if not loop.last %}, {% endif %}{% endfor %}{% if keys | length > 1 %}){% endif %}
{% endmacro %}
{% macro listed_key(alias) %}{{ d.key_columns(alias) }}{% endmacro %}
{% macro distinct_keys(keys) %}
count(distinct {% if keys | length > 1 %}({% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %}){% else %}{{ keys[0].name }}{% endif %})
{% endmacro %}
{% macro key_is_null(keys, alias) %}
{% for key in keys %}{{ col(alias, key.name) }} is null{% if not loop.last %} or {% endif %}{% endfor %}
{% endmacro %}
{% macro key_is_whole(keys, alias) %}
{% for key in keys %}{{ col(alias, key.name) }} is not null{% if not loop.last %} and {% endif %}{% endfor %}
{% endmacro %}

{# A number of 64 bits for all values of a row: the same for two rows only if none differs, collisions aside. #}
{% macro row_hash(columns, alias) %}hash({% for c in columns %}{{ d.comparable(c, col(alias, c.name)) }}{% if not loop.last %}, {% endif %}{% endfor %}){% endmacro %}

{# ---- a whole snapshot row beside another: in one column where the dialect has a type for that
   (`packs_rows`, with the macro `pack`), else in columns that are numbered ---- #}
{% macro packed(all, alias, snapshot, name) %}
{% if packs_rows %}{{ d.pack(all, alias, snapshot) }} as {{ name }}{% else %}{% for c in all %}{{ col(alias, c.name) }} as {{ name }}{{ c.place }}{% if not loop.last %}, {% endif %}{% endfor %}{% endif -%}
{% endmacro %}
{% macro pack(all, alias, snapshot) %}null{% endmacro %}
{% macro unpack(packed, column) %}{{ packed }}{% if packs_rows %}.{{ column.name }}{% else %}{{ column.place }}{% endif %}{% endmacro %}
{# The same row, handed on. #}
{% macro packed_of(alias, name) %}
{% if packs_rows %}{{ alias }}.{{ name }}{% else %}{% for c in all %}{{ alias }}.{{ name }}{{ c.place }}{% if not loop.last %}, {% endif %}{% endfor %}{% endif -%}
{% endmacro %}

{# ---- a text that stands for another one, of any length ---- #}
{% macro digest(value) %}sha256({{ value }}){% endmacro %}

{# ---- a value from its canonical text ---- #}
{% macro value_of(column, literal) %}{% if column.binary %}{{ d.bytes_of(literal) }}{% else %}cast({{ literal }} as {{ column.type }}){% endif %}{% endmacro %}
{% macro bytes_of(literal) %}from_base64({{ literal }}){% endmacro %}

{# ---- a text in a new table's column that will hold longer ones ---- #}
{% macro roomy(value) %}{{ value }}{% endmacro %}

{# ---- two texts as one; null when one of them is ---- #}
{% macro joined(left, right) %}{{ left }} || {{ right }}{% endmacro %}

{# ---- positions of a text, from 1 ---- #}
{% macro character(value, position) %}substring({{ value }}, {{ position }}, 1){% endmacro %}

{# ---- tables ---- #}
{% macro empty(table) %}delete from {{ table }}{% endmacro %}
{# The end of a select that reads no table and gives no row. #}
{% macro no_rows() %}where 1 = 0{% endmacro %}
{# How a table of a select begins of which there is to be one. Where it fails when there is one, that is the answer too. #}
{% macro create_once() %}create table if not exists{% endmacro %}
{# How a copy begins that only the current script reads. #}
{% macro create_scratch() %}create table{% endmacro %}
{# How one begins that is kept until its run was committed, or settled. #}
{% macro create_of_run() %}create table{% endmacro %}
{# A new table's name, with what the engine wants to know of it. #}
{% macro made(table) %}{{ table }}{% endmacro %}
{# The same for the table of a diff. #}
{% macro made_diff() %}{{ d.made(diff) }}{% endmacro %}
{# A step that makes a table's keys unique and quick to find; nothing where the engine needs none. #}
{% macro index_keys(table, keys) %}{% endmacro %}
{# A step with which the planner is told how to join model and snapshot; nothing where it knows. #}
{% macro join_hint(sorted) %}{% endmacro %}
{# A name as the catalogue keeps it. #}
{% macro as_catalogued(name) %}{{ name }}{% endmacro %}
{# A name in the catalogue, letter by letter. #}
{% macro exact_name(name) %}{{ name }}{% endmacro %}
{# How a deletion begins, what its rows are called, and the table itself inside its conditions. #}
{% macro delete_from(table) %}delete from {{ table }} as t{% endmacro %}
{% macro deleted(table) %}t{% endmacro %}
{% macro as_it_was(table) %}{{ table }}{% endmacro %}
{% macro drop(table) %}drop table if exists {{ table }}{% endmacro %}
{% macro rename(table, to) %}alter table {{ table }} rename to {{ to.name }}{% endmacro %}

{# The number of a row in its diff: a column, or what the engine numbers the rows of every table with, which
   costs nothing and does not keep it from writing with all its threads. #}
{% macro sequence(alias) %}{{ d.row_id(alias) }}{% endmacro %}
{# The same for the driver to read, which may know the engine's own form. #}
{% macro leaving_sequence(alias) %}{{ d.sequence(alias) }}{% endmacro %}
{# The same in the engine's own form, which it finds and compares rows by; and that form of a number. #}
{% macro row_id(alias) %}{% if row_ids %}{{ col(alias, row_ids) }}{% else %}{{ col(alias, "_levin_sequence") }}{% endif %}{% endmacro %}
{% macro row_id_of(number) %}{{ number }}{% endmacro %}
{% macro between(alias, range) %}{{ d.row_id(alias) }} between {{ d.row_id_of(range.first) }} and {{ d.row_id_of(range.last) }}{% endmacro %}
{% macro same_row(outcome, alias) %}{% set number %}{{ outcome | sql }}.sequence{% endset %}{{ d.row_id_of(number) }} = {{ d.row_id(alias) }}{% endmacro %}

{# Numbers of an engine's own must be the same when rows are read and when they are committed. What is written
   down about a table when its delivery begins, as a text; whether a delivery has lost its numbers since; and
   steps of a commit that go no further if it has, and keep it from losing them until the commit's end. #}
{% macro numbers() %}null{% endmacro %}
{% macro numbers_lost() %}1 = 0{% endmacro %}
{% macro hold_numbers() %}{% endmacro %}
{# The order in which rows of a diff leave: every range of sequences that a batch stands for is whole. #}
{% macro in_sequence() %}order by {{ d.row_id("d") }}{% endmacro %}

{# ---- a row on its way out: keys k0…, current values c0…, previous values p0… ---- #}
{% macro delivered_rows() %}
{% if waits %}
{{ d.waiting() }}
{% endif %}
select {{ d.leaving_sequence("d") }} as _levin_sequence{% if shape == "full" %}, d._levin_changed, d._levin_version{% endif %}{% if matching %}, {{ d.claim() }} as _levin_claim{% endif +%}
{% for key in keys %}
  , {{ d.wire_key(key, col("d", key.name)) }} as k{{ loop.index0 }}
{% endfor %}
{% for c in columns %}
{% if operation == "removed" %}
  , {{ d.wire(c, d.unpack("d._levin_previous" | sql, c)) }} as c{{ loop.index0 }}
{% else %}
  , {{ d.wire(c, col("d", c.name)) }} as c{{ loop.index0 }}
{% endif %}
{% endfor %}
{% if operation == "changed" %}
{% for c in previous %}
  , {{ d.wire(c, d.unpack("d._levin_previous" | sql, c)) }} as p{{ loop.index0 }}
{% endfor %}
{% endif %}
from {{ diff }} as d
{% if waits %}
{{ d.waited_for() }}
{% endif %}
{% if shape == "full" %}
where d._levin_operation = {{ operation_literal }}
{% if after is not none %}
  and {{ d.row_id("d") }} > {{ d.row_id_of(after) }}
{% endif %}
{% elif after is not none %}
where {{ d.row_id("d") }} > {{ d.row_id_of(after) }}
{% endif %}
{% if through is not none %}
  and {{ d.row_id("d") }} <= {{ d.row_id_of(through) }}
{% endif %}
{{ d.in_sequence() }}
{% if limit is not none %}
limit {{ limit }}
{% endif %}
{% endmacro %}
