{# The model, read where it stands or from the copy that this script made of it. #}
{% macro source() %}
{% if stage %}{{ stage }}{% else %}{{ d.modelled() }}{% endif %}
{% endmacro %}
{# The model's rows in the forms in which they are compared. #}
{% macro modelled() %}
(
{{ model }}
)
{% endmacro %}

{% macro stage_model() %}
{% if stage %}
{{ step("stage the model") }}
{{ d.create_scratch() }} {{ d.made(stage) }} as
select {% for c in all %}{{ c.name }}{% if not loop.last %}, {% endif %}{% endfor +%}
from {{ d.modelled() }} as m
{% endif %}
{% if set_aside %}
{{ step("set keys aside") }}
{{ d.create_of_run() }} {{ d.made(set_aside) }} as
select {% for key in keys %}{{ key.name }}, {% endfor %}count(*) as _levin_rows,
  case when {{ d.key_is_null(keys, "m") }} then 'NULL_PRIMARY_KEY' else 'DUPLICATE_PRIMARY_KEY' end as _levin_code
from {{ d.source() }} as m
group by {% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor +%}
having count(*) > 1 or {{ d.key_is_null(keys, "m") }}
{% endif %}
{% endmacro %}

{% macro is_set_aside(alias) %}
exists (select 1 from {{ set_aside }} as a where {{ d.same_key(keys, "a", alias) }})
{% endmacro %}

{% macro unstage() %}
{% if stage %}
{{ step("drop the staged model") }}
drop table {{ stage }}
{% endif %}
{% endmacro %}

{# How many rows the model has, and why some of them are not in the diff; one row. A model with unique
   keys has exactly the expected rows: what is known, less what is gone, and what is new. A table that was read in
   a statement of its own is not read again in another: it may have changed. Its rows are counted with the
   differences then, and the count stands in their table as one more row, until it was read. #}
{% macro model_counts() %}
{% if reads_once %}
(
  select cast(_levin_changed as {{ d.type_bigint() }}) as queried, cast(_levin_version as {{ d.type_bigint() }}) as null_keys
  from {{ diff }}
  where _levin_operation = 'queried'
) as q
{% else %}
(
  select count(*) as queried, cast(coalesce(sum(case when {{ d.key_is_null(keys, "m") }} then 1 else 0 end), 0) as {{ d.type_bigint() }}) as null_keys
  from {{ d.source() }} as m
) as q
{% endif %}
{% if set_aside %}
cross join (
  select
    cast(coalesce(sum(case when _levin_code = 'DUPLICATE_PRIMARY_KEY' then _levin_rows else 0 end), 0) as {{ d.type_bigint() }}) as duplicate_key_rows
  from {{ set_aside }}
) as a
{% endif %}
{% endmacro %}

{# Every row is new: a first run, or a mode that sends every row every run. The table has the
   snapshot's own columns and the row's number, so that it can become the snapshot by a change of its name. #}
{% macro diff_first() %}
{{ d.stage_model() }}
{{ step("write the rows") }}
{{ d.create_of_run() }} {{ d.made_diff() }} as
select {% for c in all %}m.{{ c.name }}{% if not loop.last %}, {% endif %}{% endfor %}{{ d.generation_here() }}{{ d.number_here() }}
{% if matching %}
  {{ d.first_claim() }}
{% endif %}
from {{ d.source() }} as m
{% if matching %}
{{ d.first_claims() }}
{% endif %}
{% if not reads_once %}
where {{ d.key_is_whole(keys, "m") }}
{% if set_aside %}
  and not {{ d.is_set_aside("m") }}
{% endif %}
{% endif %}
{{ d.add_generation() }}
{{ d.first_unique() }}
{{ step("count", "rows") }}
{% if reads_once %}
select r.queried, r.null_keys, 0 as duplicate_key_rows, r.queried - r.null_keys as added, 0 as changed, 0 as removed, 0 as known, r.queried - r.null_keys as expected,
  {{ d.first_duplicates() }} as own_duplicates, 0 as longest_key
from (
  select count(*) as queried, cast(coalesce(sum(case when {{ d.key_is_null(keys, "m") }} then 1 else 0 end), 0) as {{ d.type_bigint() }}) as null_keys
  from {{ diff }} as m
) as r
{% else %}
select q.queried, q.null_keys, {% if set_aside %}a.duplicate_key_rows{% else %}0 as duplicate_key_rows{% endif %}, r.added, 0 as changed, 0 as removed, 0 as known, r.added as expected,
  {{ d.first_duplicates() }} as own_duplicates, 0 as longest_key
from {{ d.model_counts() }}
cross join (select count(*) as added from {{ diff }}) as r
{% endif %}
{{ d.unstage() }}
{% endmacro %}

{# The generation of a first diff's rows: written with them, or told of the whole table afterwards. #}
{% macro generation_here() %}, {{ d.wide(generation) }} as _levin_generation{% endmacro %}
{% macro add_generation() %}{% endmacro %}

{# Where an engine can make the keys unique on the way, a failure of that step is the answer. #}
{% macro first_unique() %}{% endmacro %}

{% macro first_duplicates() %}
(select count(*) from (select 1 as one from {{ diff }} group by {% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %} having count(*) > 1) as r)
{% endmacro %}

{# A character for each column: whether it differs. #}
{% macro marks() %}
{% for c in columns %}{{ d.mark(c) }}{% if not loop.last +%}
      || {% endif %}{% endfor %}
{% endmacro %}
{% macro mark(c) %}case when {{ d.differs(c, col("m", c.name), col("k", c.name)) }} then '1' else '0' end{% endmacro %}

{# The sequence of a row in its diff, where the engine has none of its own. #}
{% macro number_here() %}{% if not row_ids %}, row_number() over () as _levin_sequence{% endif %}{% endmacro %}

{# The same where the sides of a comparison are put together. #}
{% macro number_of_side() %}{{ d.number_here() }}{% endmacro %}

{# Bytes of the longest new key, where the snapshot's index may refuse it: known before anything is sent. #}
{% macro longest_key() %}0{% endmacro %}

{# Model against snapshot: one statement reads both and writes only what differs. `k` is what is
   known: the snapshot, and every key in doubt with what was last sent of it. Whether a key whose
   removal is in doubt is still there nobody knows: when it returns, it is added. #}
{% macro diff_full() %}
{{ d.stage_model() }}
{% if taken %}
{{ d.take_columns() }}
{% endif %}
{{ d.join_hint(sorted) }}
{% if middle %}
{{ d.prepare_halves() }}
{% endif %}
{{ step("write the differences") }}
{{ d.create_of_run() }} {{ d.made_diff() }} as
{% if matching %}
{{ d.claimed_differences() }}
{% else %}
{{ d.differences() }}
{% if reads_once %}
union all
{{ d.counted_row() }}
{% endif %}
{% if parked %}
{{ d.park() }}
{% endif %}
{% endif %}
{% if middle %}
{{ d.forget_halves() }}
{% endif %}
{{ step("count", "rows") }}
select q.queried, q.null_keys, {% if set_aside %}a.duplicate_key_rows{% else %}0 as duplicate_key_rows{% endif %}, r.added, r.changed, r.removed, s.known,{% if parked %} r.parked_added, r.parked_changed, r.parked_removed,{% endif +%}
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from {{ diff }}{% if matching %} where not {{ d.is_operation("removed") }}{% endif %} group by {% for key in keys %}{{ key.name }}{% if not loop.last %}, {% endif %}{% endfor %} having count(*) > 1) as r) as own_duplicates,
  {{ d.longest_key() }} as longest_key
from {{ d.model_counts() }}
cross join (
  select
    cast(coalesce(sum(case when {{ d.is_operation("added") }} then 1 else 0 end), 0) as {{ d.type_bigint() }}) as added,
    cast(coalesce(sum(case when {{ d.is_operation("added") }} and _levin_changed is null then 1 else 0 end), 0) as {{ d.type_bigint() }}) as new_keys,
    cast(coalesce(sum(case when {{ d.is_operation("changed") }} then 1 else 0 end), 0) as {{ d.type_bigint() }}) as changed,
    cast(coalesce(sum(case when {{ d.is_operation("removed") }} and _levin_changed is null then 1 else 0 end), 0) as {{ d.type_bigint() }}) as gone,
    cast(coalesce(sum(case when {{ d.is_operation("removed") }} then 1 else 0 end), 0) as {{ d.type_bigint() }}) as removed{% if parked %},
    cast(coalesce(sum(case when _levin_operation = 'parked_added' then 1 else 0 end), 0) as {{ d.type_bigint() }}) as parked_added,
    cast(coalesce(sum(case when _levin_operation = 'parked_changed' then 1 else 0 end), 0) as {{ d.type_bigint() }}) as parked_changed,
    cast(coalesce(sum(case when _levin_operation = 'parked_removed' then 1 else 0 end), 0) as {{ d.type_bigint() }}) as parked_removed{% endif +%}
  from {{ diff }}
) as r
cross join ({% if counted is none %}select count(*) as known from {{ d.known() }} as k{% else %}select cast({{ counted }} as {{ d.type_bigint() }}) as known{% endif %}) as s
{% if reads_once %}
{{ step("forget the count") }}
delete from {{ diff }} where _levin_operation = 'queried'
{% endif %}
{{ d.unstage() }}
{% endmacro %}

{# The model's rows, counted in the statement that compares them. #}
{% macro counted_row() %}
{% set all_rows %}count(*){% endset %}
{% set null_keys %}coalesce(sum(case when {{ d.key_is_null(keys, "m") }} then 1 else 0 end), 0){% endset %}
select 'queried', {{ d.text(all_rows) }}, {{ d.text(null_keys) }},
{% for c in all %}
  null,
{% endfor %}
  {% for c in all %}{% if packs_rows %}{% if loop.first %}null{% endif %}{% else %}null{% if not loop.last %}, {% endif %}{% endif %}{% endfor %}{% if not row_ids %}, 0{% endif +%}
from {{ d.source() }} as m
{% endmacro %}

{# Today's values of new columns count as accepted: only what changes from here on is sent. Keys that are set
   aside have several values or none. #}
{% macro take_columns() %}
{{ step("take new columns as accepted") }}
update {{ snapshot }} as t
set {% for c in taken %}{{ c.name }} = {{ col("m", c.name) }}{% if not loop.last %}, {% endif %}{% endfor +%}
from {{ d.source() }} as m
where {{ d.same_key(keys, "m", "t") }}
  and ({% for c in taken %}{{ col("m", c.name) }} is not null{% if not loop.last %} or {% endif %}{% endfor %})
{% if set_aside %}
  and not {{ d.is_set_aside("t") }}
{% endif %}
{% endmacro %}

{% macro park() %}
{{ step("park rows that were refused too often") }}
update {{ diff }} as f
set _levin_operation = {{ d.parked_word("f") }}
where exists (select 1 from {{ rejections }} as r where {{ d.is_parked("f") }})
{% endmacro %}
{# A dead letter stays in the diff under a word of its own, so that no statement takes it for a row that is sent. #}
{% macro is_operation(operation) %}
{% if parked %}_levin_operation in ('{{ operation | sql }}', 'parked_{{ operation | sql }}'){% else %}_levin_operation = '{{ operation | sql }}'{% endif +%}
{% endmacro %}
{% macro parked_word(row) %}{% set word %}'parked_'{% endset %}{{ d.joined(word, col(row, "_levin_operation")) }}{% endmacro %}
{% macro is_parked(row) %}
r._levin_parked and {{ d.same_key(keys, "r", row) }} and r._levin_operation = {{ col(row, "_levin_operation") }} and r._levin_fingerprint = {{ d.fingerprint(row) }}
{% endmacro %}

{# Rows of the model, and keys of the snapshot, that differ, found by carrying no more of the snapshot through
   the join than key and hash: its values are read again, but only for those keys. Both sides have the
   same types, without which equal hashes would mean nothing. Null keys go after the join: a filter
   before it would make the model look smaller, and the wide side would be kept in memory. #}
{% macro differing() %}
with differing as (
  select {% for c in all %}{{ col("m", c.name) }}, {% endfor %}{% for key in keys %}{{ col("k", key.name) }} as _levin_known{{ loop.index0 }}{% if not loop.last %}, {% endif %}{% endfor +%}
  from (
    select {% for c in all %}{{ col("m", c.name) }}, {% endfor %}{% if compared %}{{ d.row_hash(columns, "m") }}{% else %}0{% endif %} as _levin_hash
    from {{ d.source() }} as m
  ) as m
  full join (
    select {% for key in keys %}{{ col("s", key.name) }}, {% endfor %}{% if compared %}{{ d.row_hash(columns, "s") }}{% else %}0{% endif %} as _levin_hash
    from {{ snapshot }} as s
  ) as k on {{ d.same_key(keys, "m", "k") }}
  where (k.{{ keys[0].name }} is not null or {{ d.key_is_whole(keys, "m") }})
    and (m.{{ keys[0].name }} is null or k.{{ keys[0].name }} is null or m._levin_hash <> k._levin_hash)
)
{% endmacro %}

{# The two sides of the comparison: the model's rows with whole keys, and what is known. #}
{% macro model_side(half) %}
{% if by_hash %}
(
  select * from differing as m
  where {{ d.key_is_whole(keys, "m") }}
)
{% else %}
(
  select * from {{ d.source() }} as m
  where {{ d.key_is_whole(keys, "m") }}
{% if half %}
    and {{ d.is_in(half, "m") }}
{% endif %}
{% if set_aside %}
    and not {{ d.is_set_aside("m") }}
{% endif %}
)
{% endif %}
{% endmacro %}
{% macro known_side(half) %}
{% if by_hash %}
(
  select * from {{ snapshot }} as s
  where {{ d.whole_key(keys, "s") }} in (select {% for key in keys %}f._levin_known{{ loop.index0 }}{% if not loop.last %}, {% endif %}{% endfor %} from differing as f)
)
{% elif half %}
(
  select * from {{ d.known() }} as k
  where {{ d.is_in(half, "k") }}
)
{% else %}{{ d.known() }}
{% endif %}
{% endmacro %}

{# A dialect whose types name a middle says where it is. #}
{% macro prepare_halves() %}{% endmacro %}
{% macro forget_halves() %}{% endmacro %}
{% macro middle_key() %}null{% endmacro %}
{# Every row has its key on one side of the middle, model and snapshot alike. #}
{% macro is_in(half, alias) %}{{ col(alias, keys[0].name) }} {% if half == "lower" %}<={% else %}>{% endif %} {{ d.middle_key() }}{% endmacro %}

{# Every row that differs, every key in doubt, and every row that is due. #}
{% macro differences() %}
{% if by_hash %}
{{ d.differing() }}
{% endif %}
{% if middle %}
{{ d.differences_in("lower") }}
union all
{{ d.differences_in("upper") }}
{% else %}
{{ d.differences_in(none) }}
{% endif %}
{% endmacro %}
{% macro differences_in(half) %}
{% set operation %}
case
{% if matching %}
    when p.part > 1 then 'removed'
{% else %}
    when m.{{ keys[0].name }} is null then 'removed'
{% endif %}
    when k.{{ keys[0].name }} is null{% if in_doubt %} or not k._levin_accepted or k._levin_sent <> 'changed'{% endif %}{% if resync %} or k._levin_generation < {{ due_before }}{% endif %}{% if matching %} or {{ d.moved() }}{% endif %} then 'added'
    else 'changed'
  end
{% endset %}
select
  {{ d.roomy(operation) }} as _levin_operation,
  case
{% if matching %}
    when p.part = 3 then {{ no_mark }}
    when {{ d.gives_up() }} then null
{% endif %}
    when m.{{ keys[0].name }} is null or k.{{ keys[0].name }} is null then null
{% if in_doubt %}
    when k._levin_version is not null then {{ every_mark }}
{% endif %}
{% if due_before %}
    when k._levin_generation < {{ due_before }} then {{ every_mark }}
{% endif %}
    else {% if compared %}{{ d.marks() }}{% else %}{{ no_mark }}{% endif +%}
  end as _levin_changed,
{% if in_doubt %}
  case
{% if matching %}
    when p.part > 1 then case when k._levin_sent = 'removed' and (p.part = 3 or not {{ d.strays() }}) then k._levin_version end
{% endif %}
    when m.{{ keys[0].name }} is null and k._levin_sent = 'removed' then k._levin_version
    when m.{{ keys[0].name }} is not null
      and (k._levin_sent = 'added' or (k._levin_sent = 'changed' and k._levin_accepted{% if resync %} and k._levin_generation >= {{ due_before }}{% endif %}{% if matching %} and not {{ d.moved() }}{% endif %}))
{% for c in columns %}
      and not ({{ d.differs(c, col("m", c.name), d.unpack("k._levin_doubt" | sql, c)) }})
{% endfor %}
      then k._levin_version
  end as _levin_version,
{% else %}
  cast(null as {{ d.type_text() }}) as _levin_version,
{% endif %}
{% for key in keys %}
  coalesce({{ col("m", key.name) }}, {{ col("k", key.name) }}) as {{ key.name }},
{% endfor %}
{% for c in columns %}
{% if matching %}
  case when p.part = 1 then {{ col("m", c.name) }} end as {{ c.name }},
{% else %}
  {{ col("m", c.name) }},
{% endif %}
{% endfor %}
{% if matching %}
  {{ d.previous_of_part() }},
{{ d.match_of_part() }}
{% else %}
  {{ d.packed(all, "k", snapshot, "_levin_previous" | sql) }}{{ d.number_of_side() }}
{% endif %}
from {{ d.both_sides(half) }}
{% if matching %}
{{ d.parts() }}
{% endif %}
where {% if matching %}{{ d.part_counts() }} and {% endif %}{{ d.side_counts(half) }}(m.{{ keys[0].name }} is null
  or k.{{ keys[0].name }} is null
{% if in_doubt %}
  or k._levin_version is not null
{% endif %}
{% if due_before %}
  or k._levin_generation < {{ due_before }}
{% endif %}
{% if compared %}
{% for c in columns %}
  or {{ d.differs(c, col("m", c.name), col("k", c.name)) }}
{% endfor %}
{% endif %}
)
{% endmacro %}
{# Every key of either side, and what a row of the join must be to stand for one. #}
{% macro both_sides(half) %}
{{ d.model_side(half) }} as m
full join {{ d.known_side(half) }} as k on {{ d.same_key(keys, "m", "k") }}
{% endmacro %}
{% macro side_counts(half) %}{% endmacro %}

{% macro known() %}
{% if in_doubt or set_aside %}
(
  select s.*{% if in_doubt %}, true as _levin_accepted, d._levin_operation as _levin_sent, d._levin_version, {{ d.packed(all, "d", snapshot, "_levin_doubt" | sql) }}{% endif +%}
  from {{ snapshot }} as s
{% if in_doubt %}
  left join {{ doubts }} as d on {{ d.same_key(keys, "d", "s") }}
{% endif %}
{% if set_aside %}
  where not {{ d.is_set_aside("s") }}
{% endif %}
{% if in_doubt %}
  union all
  select {% for c in all %}d.{{ c.name }}, {% endfor %}d._levin_generation, false, d._levin_operation, d._levin_version, {{ d.packed(all, "d", snapshot, "_levin_doubt" | sql) }}
  from {{ doubts }} as d
  where not exists (select 1 from {{ snapshot }} as s where {{ d.same_key(keys, "s", "d") }})
{% if set_aside %}
    and not {{ d.is_set_aside("d") }}
{% endif %}
{% endif %}
)
{% else %}
{{ snapshot }}
{% endif %}
{% endmacro %}
