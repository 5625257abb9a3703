{# A destination may know its records by another field than the model's key: the matching field. Rows of
   model and snapshot that share its value are one record there, so a value has one holder at a time.
   In a full diff `_levin_match0…` is the value that a row claims (added, changed) or gives up (removed). #}
{% macro same_match(left, right) %}
{% for c in matching %}{{ left | sql }}._levin_match{{ loop.index0 }} = {{ right | sql }}._levin_match{{ loop.index0 }}{% if not loop.last %} and {% endif %}{% endfor %}
{% endmacro %}
{% macro match_columns(alias) %}
{% for c in matching %}{{ alias | sql }}._levin_match{{ loop.index0 }}{% if not loop.last %}, {% endif %}{% endfor %}
{% endmacro %}
{% macro key_columns(alias) %}
{% for key in keys %}{{ col(alias, key.name) }}{% if not loop.last %}, {% endif %}{% endfor %}
{% endmacro %}

{# Who holds which value: key and matching value of every row of a table. #}
{% macro holders_in(table) %}
select {% for key in keys %}{{ key.name }}, {% endfor %}{% for c in matching %}{{ c.name }} as _levin_match{{ loop.index0 }}{% if not loop.last %}, {% endif %}{% endfor %} from {{ table }}
{% endmacro %}

{# A key whose known record has another matching value than the model's row. #}
{% macro moved() %}
{% if compared %}(m.{{ keys[0].name }} is not null and k.{{ keys[0].name }} is not null and not coalesce({{ d.same_key(matching, "m", "k") }}, false)){% else %}1 = 0{% endif %}
{% endmacro %}
{# … and had a value before, which it gives up. #}
{% macro gives_up() %}({{ d.moved() }} and {{ d.key_is_whole(matching, "k") }}){% endmacro %}
{# What is in doubt of a key that moved twice: a record that is neither the known one nor the model's. #}
{% macro strays() %}
(k._levin_accepted and k._levin_version is not null
    and not coalesce({% for c in matching %}{{ d.unpack("k._levin_doubt" | sql, c) }} = {{ col("k", c.name) }}{% if not loop.last %} and {% endif %}{% endfor %}, true)
    and (m.{{ keys[0].name }} is null or not coalesce({% for c in matching %}{{ d.unpack("k._levin_doubt" | sql, c) }} = {{ col("m", c.name) }}{% if not loop.last %} and {% endif %}{% endfor %}, true)))
{% endmacro %}

{# A row of the join stands for up to three rows of the diff: the model's row (1), the removal of the
   record that is known (2), and of another one that may be there (3). #}
{% macro parts() %}
cross join (select 1 as part union all select 2{% if in_doubt %} union all select 3{% endif %}) as p
{% endmacro %}
{% macro part_counts() %}
(p.part = 1 and m.{{ keys[0].name }} is not null
    or p.part = 2 and k.{{ keys[0].name }} is not null and (m.{{ keys[0].name }} is null or {{ d.gives_up() }}){% if in_doubt +%}
    or p.part = 3 and {{ d.strays() }}{% endif %})
{% endmacro %}
{# What was known of the record that a row is about. #}
{% macro previous_of_part() %}
{% if not in_doubt %}
{{ d.packed(all, "k", snapshot, "_levin_previous" | sql) }}
{% elif packs_rows %}
case when p.part = 3 then k._levin_doubt else {{ d.pack(all, "k", snapshot) }} end as _levin_previous
{% else %}
{% for c in all %}case when p.part = 3 then {{ d.unpack("k._levin_doubt" | sql, c) }} else {{ col("k", c.name) }} end as _levin_previous{{ c.place }}{% if not loop.last %}, {% endif %}{% endfor %}
{% endif %}
{% endmacro %}
{% macro match_of_part() %}
{% for c in matching %}
  case p.part when 1 then {{ col("m", c.name) }} when 2 then {{ col("k", c.name) }}{% if in_doubt %} else {{ d.unpack("k._levin_doubt" | sql, c) }}{% endif %} end as _levin_match{{ loop.index0 }},
{% endfor %}
  p.part = 1 and (k.{{ keys[0].name }} is null or {{ d.moved() }}) as _levin_claims,
  {% if in_doubt %}k._levin_version is not null{% else %}1 = 0{% endif %} as _levin_doubtful
{% endmacro %}

{# The differences, each with what becomes of its claim: a row that claims a value which somebody keeps,
   or which several claim, is refused; a removal whose value arrives on another row is superseded.
   A removal in doubt is neither: it must be sent, and whoever claims its value waits for the answer. #}
{% macro claimed_differences() %}
with {% if parked %}w as (
{{ d.differences() }}
),
f as (
  select case when r.{{ keys[0].name }} is not null then {{ d.parked_word("w") }} else w._levin_operation end as _levin_operation, w._levin_changed, w._levin_version,
{% for c in all %}
    {{ col("w", c.name) }},
{% endfor %}
    {{ d.packed_of("w" | sql, "_levin_previous" | sql) }}, {{ d.match_columns("w") }}, w._levin_claims and r.{{ keys[0].name }} is null as _levin_claims, w._levin_doubtful
  from w
  left join {{ rejections }} as r on {{ d.is_parked("w") }}
),
{% else %}f as (
{{ d.differences() }}
),
{% endif %}
holders as (
  {{ d.holders_in(snapshot) }}
{% if in_doubt %}
  union all
  {{ d.holders_in(doubts) }}
{% endif %}
),
standing as (
  select h.*
  from holders as h
  left join f as r on r._levin_operation = 'removed' and {{ d.same_key(keys, "r", "h") }} and {{ d.same_match("r", "h") }}
  where r.{{ keys[0].name }} is null
),
contested as (
  select {{ d.match_columns("f") }} from f where f._levin_claims group by {{ d.match_columns("f") }} having count(*) > 1
),
held as (
  select distinct {{ d.key_columns("f") }}
  from f
  join standing as h on {{ d.same_match("h", "f") }}
  where f._levin_claims and not ({{ d.same_key(keys, "h", "f") }})
),
judged as (
  select f.*,
    case
      when {% if parked %}f._levin_operation like 'parked%' or {% endif %}f._levin_operation = 'removed' then null
      when {% for c in matching %}f._levin_match{{ loop.index0 }} is null{% if not loop.last %} or {% endif %}{% endfor %} then 'NULL_MATCH_VALUE'
      when f._levin_claims and (c._levin_match0 is not null or h.{{ keys[0].name }} is not null) then 'DUPLICATE_MATCH_VALUE'
    end as _levin_judgement
  from f
  left join contested as c on {{ d.same_match("c", "f") }}
  left join held as h on {{ d.same_key(keys, "h", "f") }}
),
arriving as (
  select {{ d.key_columns("j") }}, {{ d.match_columns("j") }} from judged as j where j._levin_operation <> 'removed'{% if parked %} and j._levin_operation not like 'parked%'{% endif %} and j._levin_judgement is null
  union all
  select {{ d.key_columns("h") }}, {{ d.match_columns("h") }} from standing as h
),
superseded as (
  select distinct {{ d.key_columns("r") }}, {{ d.match_columns("r") }}
  from f as r
  join arriving as a on {{ d.same_match("a", "r") }}
  where r._levin_operation = 'removed' and not r._levin_doubtful and not ({{ d.same_key(keys, "a", "r") }})
)
select j._levin_operation, j._levin_changed, j._levin_version,
{% for c in all %}
  {{ col("j", c.name) }},
{% endfor %}
  {{ d.packed_of("j" | sql, "_levin_previous" | sql) }}, {{ d.match_columns("j") }},
  case when s.{{ keys[0].name }} is not null then 'SUPERSEDED' else j._levin_judgement end as _levin_claim{{ d.number_here() }}
from judged as j
left join superseded as s on j._levin_operation = 'removed' and {{ d.same_key(keys, "s", "j") }} and {{ d.same_match("s", "j") }}
{% endmacro %}

{# Rows of a first diff that claim a value together with others, or none. #}
{% macro first_claims() %}
left join (
  select {% for c in matching %}{{ c.name }}, {% endfor %}count(*) as _levin_claimants
  from {{ d.source() }} as m
  where {{ d.key_is_whole(keys, "m") }}
  group by {% for c in matching %}{{ c.name }}{% if not loop.last %}, {% endif %}{% endfor +%}
  having count(*) > 1
) as contested on {{ d.same_key(matching, "contested", "m") }}
{% endmacro %}
{% macro first_claim() %}
, case
    when {{ d.key_is_null(matching, "m") }} then 'NULL_MATCH_VALUE'
    when contested._levin_claimants is not null then 'DUPLICATE_MATCH_VALUE'
  end as _levin_claim
{% endmacro %}

{# Removals that had to come first and were not accepted: their keys and values wait. #}
{% macro owed_removals() %}
  select distinct {{ d.key_columns("r") }}, {{ d.match_columns("r") }}
  from {{ diff }} as r
  join (
    {{ d.holders_in(snapshot) }}
    union all
    {{ d.holders_in(doubts) }}
  ) as h on {{ d.same_key(keys, "h", "r") }} and {{ d.same_match("h", "r") }}
  where r._levin_operation in ('removed', 'parked_removed') and r._levin_claim is null
{% endmacro %}
{% macro waiting() %}
with waiting as (
  {{ d.owed_removals() }}
)
{% endmacro %}
{% macro waited_for() %}
left join (select distinct {{ d.key_columns("w") }} from waiting as w) as own on {{ d.same_key(keys, "own", "d") }}
left join (select distinct {{ d.match_columns("w") }} from waiting as w) as other on {{ d.same_match("other", "d") }}
{% endmacro %}
{% macro claim() %}
{% if waits %}coalesce(d._levin_claim, case when own.{{ keys[0].name }} is not null or other._levin_match0 is not null then 'MATCH_VALUE_HELD' end){% else %}d._levin_claim{% endif %}
{% endmacro %}

{# Whether a row of a full diff is about this very record of its key. #}
{% macro same_record(diff_row, known) %}
({{ col(diff_row, "_levin_operation") }} <> 'removed' or ({% for c in matching %}{% set match %}{{ diff_row | sql }}._levin_match{{ loop.index0 }}{% endset %}{{ d.same(match, col(known, c.name)) }}{% if not loop.last %} and {% endif %}{% endfor %}))
{% endmacro %}

{# A value has one holder. Whatever was accepted about it, an arrival or a removal, nobody else has its record
   any longer, nor a doubt about it. What is only in doubt may have overwritten the record: no row is known to be
   there, and the doubt answers for it. #}
{% macro hand_over() %}
{{ d.take_values() }}
{% if had_doubts %}
{{ d.end_doubts_about_values() }}
{% endif %}
{% endmacro %}
{% macro take_values() %}
{% set t = d.deleted(snapshot) %}
{{ step("take values from who had them") }}
{{ d.delete_from(snapshot) }}
where {{ col(t, "_levin_generation") }} < {{ diff_generation }}
  and exists (
    select 1 from {{ diff }} as f
    where {{ d.is_of("f", t) }} and not ({{ d.same_key(keys, "f", t) }}) and f._levin_claim is null
      and ({{ d.accepted("f") }}{% if exceptions %} or exists (select 1 from {{ outcomes }} as o where o.in_doubt and {{ d.same_row("o", "f") }}){% endif %})
  )
{% endmacro %}
{% macro end_doubts_about_values() %}
{% set t = d.deleted(doubts) %}
{{ step("end doubts about values that others have now") }}
{{ d.delete_from(doubts) }}
where {{ col(t, "_levin_generation") }} < {{ diff_generation }}
  and exists (
    select 1 from {{ diff }} as f
    where {{ d.is_of("f", t) }} and not ({{ d.same_key(keys, "f", t) }}) and f._levin_claim is null
      and {{ d.accepted("f") }}
  )
{% endmacro %}
{# Whether a row of a full diff is about the record that another row has. #}
{% macro is_of(diff_row, known) %}
{% for c in matching %}{{ diff_row | sql }}._levin_match{{ loop.index0 }} = {{ col(known, c.name) }}{% if not loop.last %} and {% endif %}{% endfor %}
{% endmacro %}

{# A record that was to be taken over may still be there when nobody did: the row that was to do it was refused, while
   the key's own new record was accepted. #}
{% macro doubt_superseded() %}
{{ step("doubt records that nobody took over") }}
insert into {{ doubts }}
select {% for key in keys %}{{ col("f", key.name) }}, {% endfor %}
{% for c in columns %}
{{ d.unpack("f._levin_previous" | sql, c) }},
{% endfor %}

  {{ diff_generation }}, 'removed', {{ d.version("f") }}
from {{ diff }} as f
where f._levin_claim = 'SUPERSEDED'
  and not exists (select 1 from ({{ d.holders_in(snapshot) }}) as h where {{ d.same_match("h", "f") }})
  and not exists (select 1 from ({{ d.holders_in(doubts) }}) as h where {{ d.same_match("h", "f") }})
  and not exists (select 1 from {{ doubts }} as t where {{ d.same_key(keys, "t", "f") }})
{% endmacro %}
