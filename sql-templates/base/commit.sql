{# How rows ended that were not accepted, loaded before the commit and read by nobody else. #}
{% macro create_outcomes() %}
{{ step("create the outcomes") }}
{{ d.create_of_run() }} {{ d.made(outcomes) }} as
select {{ d.wide(0) }} as sequence, cast(null as {{ d.type_text() }}) as outcome, 1 = 0 as in_doubt,
  cast(null as {{ d.type_text() }}) as code, cast(null as {{ d.type_text() }}) as reason
{{ d.no_rows() }}
{% endmacro %}

{# Rows whose delivery began and never ended; all that may have been sent, when the notes are lost. A batch holds rows
   too that never leave, because of their matching value: a doubt about one of them would take a record away from who
   has it. #}
{% macro doubt() %}
{{ step("doubt what may have been sent") }}
insert into {{ outcomes }}
select {{ d.sequence("f") }}, 'in_doubt', true, 'INTERRUPTED', {% if renumbered %}'the rows of this delivery were numbered anew'{% elif among is none %}'the notes of this delivery are lost'{% else %}'no answer came'{% endif +%}
from {{ diff }} as f
where {% if among is not none %}({% for range in among %}{% if shape == "full" %}(f._levin_operation = {{ range.operation }} and {% endif %}{{ d.between("f", range) }}{% if shape == "full" %}){% endif %}{% if not loop.last %} or {% endif %}{% endfor %})
{% else %}not exists (
  select 1 from {{ snapshot }} as s
  where s._levin_generation = {{ diff_generation }} and {{ d.same_key(keys, "s", "f") }}
)
{% if shape == "full" %}
  and f._levin_operation in ({% for o in sent %}{{ o }}{% if not loop.last %}, {% endif %}{% endfor %})
  and (f._levin_operation <> 'removed'
    or exists (select 1 from {{ snapshot }} as s where {{ d.same_key(keys, "s", "f") }})
    or exists (select 1 from {{ doubts }} as t where {{ d.same_key(keys, "t", "f") }}))
{% endif %}
{% endif %}
{% if matching %}
  and f._levin_claim is null
{% if supersedes %}
  and (f._levin_operation = 'removed' or (not exists (
    select 1 from (
    {{ d.owed_removals() }}
    ) as w
    where {{ d.same_key(keys, "w", "f") }}
  ) and not exists (
    select 1 from (
    {{ d.owed_removals() }}
    ) as w
    where {{ d.same_match("w", "f") }}
  )))
{% endif %}
{% endif %}
{% endmacro %}

{# Rows of the diff that were accepted: their delivery has ended, and not as an exception. #}
{% macro accepted(alias) %}
({% for range in ranges %}{% if shape == "full" %}({{ col(alias, "_levin_operation") }} = {{ range.operation }} and {% endif %}{{ d.between(alias, range) }}{% if shape == "full" %}){% endif %}{% if not loop.last %} or {% endif %}{% endfor %}{% if not ranges %}1 = 0{% endif %})
{% if exceptions %}
    and not exists (select 1 from {{ outcomes }} as o where {{ d.same_row("o", alias) }})
{% endif %}
{% endmacro %}

{# What a row version id is made of: the delivery, or the one in doubt that it repeats. Where rows were numbered anew since,
   nobody knows which was whose: none is repeated. #}
{% macro version(alias) %}
{% set delivery %}'{{ diff_generation }}.{% if renumbered %}renumbered.{% endif %}'{% endset %}
{% set own = d.joined(delivery, d.text(d.sequence(alias))) %}
{% if shape == "full" %}coalesce({{ col(alias, "_levin_version") }}, {{ own }}){% else %}{{ own }}{% endif %}
{% endmacro %}

{# The one atomic step. It writes the fence first: who no longer holds the generation changes nothing. #}
{% macro commit() %}
{% if not rehearsed %}
{{ step("fence", "one row") }}
update {{ state }}
set checkpoint = checkpoint + 1, basis = {{ generation }}{% if last %},
    delivering = null, delivering_table = null, delivering_shape = null, delivering_sent = null, delivering_store = null, delivering_run = null{% endif %}{% if due_before is not none %},
    due_before = {{ due_before }}{% endif +%}
where generation = {{ generation }} and checkpoint = {{ checkpoint }}
{{ d.hold_numbers() }}
{% endif %}
{% if exceptions %}
{{ d.record_rejections() }}
{% endif %}
{% if reset %}
{{ step("forget rejections") }}
{{ d.empty(rejections) }}
{{ step("forget doubts") }}
{{ d.empty(doubts) }}
{% endif %}
{% if set_aside %}
{{ d.record_set_aside() }}
{% endif %}
{% if had_rejections and not reset %}
{{ d.close_rejections() }}
{% endif %}
{% if not reset and (had_doubts or exceptions) %}
{{ d.settle_doubts() }}
{% endif %}
{% if adopt %}
{{ d.adopt_diff() }}
{% elif keeps_snapshot and (ranges or forgets_removed) %}
{{ d.apply_accepted() }}
{% endif %}
{% if hands_over %}
{{ d.hand_over() }}
{% if last and supersedes %}
{{ d.doubt_superseded() }}
{% endif %}
{% endif %}
{% if not rehearsed %}
{{ step("count what is left") }}
{{ d.count_left() }}
{% endif %}
{% endmacro %}

{% macro count_left() %}
update {{ state }}
set doubts = (select count(*) from {{ doubts }}),
    rejections = (select count(*) from {{ rejections }}),
    refused = (select count(*) from {{ rejections }} where _levin_fingerprint is not null),
    parked = (select count(*) from {{ rejections }} where _levin_parked){% if lease_seconds %},
    lease_until = {{ d.seconds_later(d.now(), lease_seconds) }}{% endif +%}
where generation = {{ generation }}
{% endmacro %}

{# Keys that were set aside may hold nulls. Written as equalities, because engines hash those and
   do not hash `is not distinct from`. #}
{% macro same_rejection(left, right) %}
{% for key in keys %}coalesce({{ d.apart(key, d.one_text(key, col(left, key.name))) }}, '') = coalesce({{ d.apart(key, d.one_text(key, col(right, key.name))) }}, '') and ({{ col(left, key.name) }} is null) = ({{ col(right, key.name) }} is null){% if not loop.last %} and {% endif %}{% endfor %}
{% endmacro %}

{# By name: a primary key may list its columns in another order than when the table was made. #}
{% macro rejection_columns() %}
({% for key in keys %}{{ key.name }}, {% endfor %}_levin_generation, _levin_checkpoint, _levin_operation, _levin_code, _levin_reason, _levin_attempts, _levin_rows, _levin_run, _levin_sequence, _levin_fingerprint, _levin_parked, _levin_first_at, _levin_last_at)
{% endmacro %}

{# What a row was when it was refused: the sync's definition, the operation and every value, each with its
   length. A row that is parked stays so as long as this is the same. #}
{% macro fingerprint(row) %}
{{ d.digest(d.fingerprint_text(row)) }}
{% endmacro %}
{% macro fingerprint_text(row) %}
{{ definition }} || {% if shape == "full" %}case when {{ col(row, "_levin_operation") }} = 'removed' then 'removed'{% for c in matching %} || {% set claim %}{{ row | sql }}._levin_match{{ loop.index0 }}{% endset %}{{ d.measured(claim) }}{% endfor %} else {{ col(row, "_levin_operation") }} || {{ d.fingerprint_values(row) }} end{% else %}'added' || {{ d.fingerprint_values(row) }}{% endif +%}
{% endmacro %}
{% macro fingerprint_values(row) %}
{% for c in columns %}{{ d.measured(col(row, c.name)) }}{% if not loop.last %} || {% endif %}{% endfor %}{% if not columns %}''{% endif +%}
{% endmacro %}
{% macro measured(value) %}
{% set length %}length({{ d.told_apart(value) }}){% endset %}
{% set colon %}':'{% endset %}
coalesce({{ d.joined(d.joined(d.text(length), colon), d.told_apart(value)) }}, '-')
{% endmacro %}

{# Whether a rejection is about the very row that is refused again, in the same delivery. #}
{% macro same_delivery() %}r._levin_run = {{ run }} and r._levin_sequence = {{ d.sequence("f") }}{% endmacro %}
{# Only answers count. A row that was parked and is refused again has changed since: it begins anew. #}
{% macro attempts() %}
case when {{ d.same_delivery() }} then r._levin_attempts else
    case when r._levin_parked then 0 else coalesce(r._levin_attempts, 0) end{% if answers %} + case when o.code in ({% for code in answers %}{{ code }}{% if not loop.last %}, {% endif %}{% endfor %}) then 1 else 0 end{% else %} + 1{% endif %} end
{% endmacro %}

{# Several commits may hear of one delivery: it is one attempt. #}
{% macro record_rejections() %}
{{ step("record the rejections") }}
insert into {{ rejections }} {{ d.rejection_columns() }}
select {% for key in keys %}{{ col("f", key.name) }}, {% endfor %}{{ generation }}, {{ checkpoint + 1 }},
  {% if shape == "full" %}f._levin_operation{% else %}'added'{% endif %}, o.code, o.reason,
  {{ d.attempts() }}, 1, {{ run }}, {{ d.sequence("f") }},
  case when {{ d.same_delivery() }} then r._levin_fingerprint else {% if definition is not none %}{{ d.fingerprint("f") }}{% else %}''{% endif %} end,
  case when {{ d.same_delivery() }} then r._levin_parked else {% if max_attempts is not none %}{% if answers %}o.code in ({% for code in answers %}{{ code }}{% if not loop.last %}, {% endif %}{% endfor %}) and {% endif %}{{ d.attempts() }} >= {{ max_attempts }}{% else %}1 = 0{% endif %} end,
  coalesce(r._levin_first_at, {{ d.now() }}), {{ d.now() }}
from {{ outcomes }} as o
join {{ diff }} as f on {{ d.same_row("o", "f") }}
left join {{ rejections }} as r on {{ d.same_rejection("r", "f") }}
where o.outcome = 'rejected'
{% if matching and shape == "full" %}
  and not exists (
    select 1 from {{ diff }} as g join {{ outcomes }} as p on {{ d.same_row("p", "g") }}
    where p.outcome = 'rejected' and {{ d.row_id("g") }} > {{ d.row_id("f") }} and {{ d.same_key(keys, "g", "f") }}
  )
{% endif %}
{{ d.forget_older_rejections() }}
{% endmacro %}

{% macro record_set_aside() %}
{% set rows_with_this_key %}'rows with this key: '{% endset %}
{{ step("record the keys set aside") }}
insert into {{ rejections }} {{ d.rejection_columns() }}
select {% for key in keys %}{{ col("a", key.name) }}, {% endfor %}{{ generation }}, {{ checkpoint + 1 }},
  'added', a._levin_code, {{ d.joined(rows_with_this_key, d.text("a._levin_rows" | sql)) }},
  0, a._levin_rows, {{ run }}, 0, null, 1 = 0,
  coalesce(r._levin_first_at, {{ d.now() }}), {{ d.now() }}
from {{ set_aside }} as a
left join {{ rejections }} as r on {{ d.same_rejection("r", "a") }}
{{ d.forget_older_rejections() }}
{% endmacro %}

{% macro forget_older_rejections() %}
{% set t = d.deleted(rejections) %}
{{ step("forget their older entries") }}
{{ d.delete_from(rejections) }}
where ({{ col(t, "_levin_generation") }} < {{ generation }} or {{ col(t, "_levin_checkpoint") }} < {{ checkpoint + 1 }})
  and exists (
    select 1 from {{ d.as_it_was(rejections) }} as n
    where n._levin_generation = {{ generation }} and n._levin_checkpoint = {{ checkpoint + 1 }}
      and {{ d.same_rejection("n", t) }}
  )
{% endmacro %}

{# A rejection closes when its row was accepted, or is no longer in the diff. Which keys are still set
   aside only the run knows that looked, not one that settles what another left. #}
{% macro close_rejections() %}
{% set t = d.deleted(rejections) %}
{{ step("close rejections") }}
{{ d.delete_from(rejections) }}
where not ({{ col(t, "_levin_generation") }} = {{ generation }} and {{ col(t, "_levin_checkpoint") }} = {{ checkpoint + 1 }})
  and ({% if last %}not exists (
    select 1 from {{ diff }} as f
    where {{ d.same_rejection("f", t) }}
  ){% if generation != diff_generation %} and {{ col(t, "_levin_fingerprint") }} is not null{% endif +%}
  or {% endif %}exists (
    select 1 from {{ diff }} as f
    where {{ d.same_rejection("f", t) }} and {{ d.accepted("f") }}
  ))
{% endmacro %}

{# A doubt ends when a later delivery of its key is accepted, or when a removal that nobody will
   send is forgotten. A definite no does not end it: the
   delivery in doubt may still have been applied. #}
{% macro settle_doubts() %}
{% set t = d.deleted(doubts) %}
{% if had_doubts %}
{{ d.end_doubts() }}
{% endif %}
{% if exceptions %}
{{ step("replace older doubts") }}
{{ d.delete_from(doubts) }}
where exists (
  select 1 from {{ diff }} as f join {{ outcomes }} as o on {{ d.same_row("o", "f") }}
  where o.in_doubt and {{ d.same_key(keys, "f", t) }}
)
{{ step("write the doubts") }}
insert into {{ doubts }}
select {% for key in keys %}{{ col("f", key.name) }}, {% endfor %}
{% for c in columns %}
{% if shape == "full" %}case when f._levin_operation = 'removed' then {{ d.unpack("f._levin_previous" | sql, c) }} else {{ col("f", c.name) }} end{% else %}{{ col("f", c.name) }}{% endif %},
{% endfor %}

  {{ diff_generation }}, {% if shape == "full" %}f._levin_operation{% else %}'added'{% endif %}, {{ d.version("f") }}
from {{ diff }} as f join {{ outcomes }} as o on {{ d.same_row("o", "f") }}
where o.in_doubt
{% if matching and shape == "full" %}
  and not (f._levin_operation = 'removed' and f._levin_changed is null and exists (
    select 1 from {{ diff }} as g join {{ outcomes }} as p on {{ d.same_row("p", "g") }}
    where p.in_doubt and {{ d.row_id("g") }} <> {{ d.row_id("f") }} and {{ d.same_key(keys, "g", "f") }}
  ))
{% endif %}
{% endif %}
{% endmacro %}

{% macro end_doubts() %}
{% set t = d.deleted(doubts) %}
{{ step("end doubts") }}
{{ d.delete_from(doubts) }}
where exists (
  select 1 from {{ diff }} as f
  where {{ d.same_key(keys, "f", t) }}
    and ({{ d.accepted("f") }}{% if forgets_removed %} or f._levin_operation = 'removed'{% endif %}){% if matching and shape == "full" +%}
    and {{ d.same_record("f", t) }}{% endif +%}
)
{% endmacro %}

{% macro apply_accepted() %}
{% if in_place %}
{{ step("write accepted changes into the snapshot") }}
update {{ snapshot }} as t
set {% for c in all %}{{ c.name }} = {{ col("f", c.name) }}, {% endfor %}_levin_generation = {{ diff_generation }}
from {{ diff }} as f
where {{ d.same_key(keys, "f", "t") }} and f._levin_operation = 'changed'
  and {{ d.accepted("f") }}
{% endif %}
{{ d.take_accepted_out() }}
{% if ranges %}
{{ d.put_accepted() }}
{% endif %}
{% endmacro %}

{% macro take_accepted_out() %}
{% set t = d.deleted(snapshot) %}
{{ step("take accepted rows out of the snapshot") }}
{{ d.delete_from(snapshot) }}
{% if matching and shape == "full" %}
where exists (
  select 1 from {{ diff }} as f
  where {{ d.same_key(keys, "f", t) }}
    and ({{ d.accepted("f") }}{% if forgets_removed %} or f._levin_operation = 'removed'{% endif %})
    and {{ d.same_record("f", t) }}
)
{% else %}
where {{ d.is_taken_out(t) }}
{% endif %}
{% endmacro %}

{% macro put_accepted() %}
{{ step("put accepted rows into the snapshot") }}
insert into {{ snapshot }}
select {% for c in all %}{{ col("f", c.name) }}, {% endfor %}{{ diff_generation }}
from {{ diff }} as f
where {{ d.accepted("f") }}
{% if shape == "full" %}
  and f._levin_operation {% if in_place %}= 'added'{% else %}<> 'removed'{% endif +%}
{% endif %}
{% endmacro %}

{# A row of the snapshot whose key was accepted, or whose removal is forgotten. #}
{% macro is_taken_out(known) %}
{{ d.whole_key(keys, known) }} in (
  select {{ d.listed_key("f") }} from {{ diff }} as f
  where {{ d.takes_out() }}
)
{% endmacro %}
{% macro takes_out() %}
{% if in_place %}f._levin_operation <> 'changed' and {% endif %}{{ d.accepted("f") }}{% if forgets_removed %} or f._levin_operation = 'removed'{% endif %}
{% endmacro %}

{# The whole result was accepted, or declared so: the table of the diff becomes the snapshot. Where it has
   columns that the snapshot has not, and cannot lose them here, it is copied. #}
{% macro adopt_diff() %}
{% if not adoptable %}
{{ step("empty the snapshot") }}
{% if keep_set_aside %}
{{ d.delete_from(snapshot) }}
where not exists (select 1 from {{ set_aside }} as a where {{ d.same_key(keys, "a", d.deleted(snapshot)) }})
{% else %}
{{ d.empty(snapshot) }}
{% endif %}
{{ step("put the rows into the snapshot") }}
insert into {{ snapshot }}
select {% for c in all %}{{ col("f", c.name) }}, {% endfor %}f._levin_generation
from {{ diff }} as f
{% if exceptions %}
where not exists (select 1 from {{ outcomes }} as o where {{ d.same_row("o", "f") }})
{% endif %}
{% else %}
{% if not row_ids %}
{% if exceptions %}{{ d.leave_out(diff) }}{% endif %}
{{ step("forget the sequences") }}
alter table {{ diff }} drop column _levin_sequence
{% endif %}
{% if keep_set_aside %}
{{ step("keep what was known of keys set aside") }}
insert into {{ diff }}
select {% for c in all %}{{ col("s", c.name) }}, {% endfor %}s._levin_generation
from {{ snapshot }} as s
where exists (select 1 from {{ set_aside }} as a where {{ d.same_key(keys, "a", "s") }})
{% endif %}
{{ step("drop the old snapshot") }}
{{ d.drop(snapshot) }}
{{ step("the diff becomes the snapshot") }}
{{ d.rename(diff, snapshot) }}
{# Not before: DuckDB 1.5 forgets what was deleted from a table that the same transaction renamed afterwards, when it reads
   its log again after a crash. #}
{% if exceptions and row_ids %}{{ d.leave_out(snapshot) }}{% endif %}
{% endif %}
{% endmacro %}

{% macro leave_out(table) %}
{{ step("leave out what was not accepted") }}
{{ d.delete_from(table) }}
where {{ d.row_id(d.deleted(table)) }} in (select {{ d.row_id_of("o.sequence" | sql) }} from {{ outcomes }} as o)
{% endmacro %}

{# What is refused at the moment, the newest first; the key ends the order, for keys that are set aside have one moment and
   no number. A part of a key that is asked for as nothing is null. #}
{% macro open_rejections() %}
{{ step("open rejections", "rows") }}
select {% for key in keys %}{{ d.wire_key(key, col("r", key.name)) }} as k{{ loop.index0 }}, {% endfor %}

  _levin_operation, _levin_code, _levin_reason, _levin_attempts, _levin_rows, _levin_run, _levin_sequence, _levin_parked, _levin_first_at, _levin_last_at
from {{ rejections }} as r
{% if run is not none %}
where _levin_run = {{ run }}
{% endif %}
{% for value in key %}
{% if loop.first and run is none %}where{% else %}  and{% endif %} {{ col("r", keys[loop.index0].name) }} {% if value is none %}is null{% else %}= {{ d.value_of(keys[loop.index0], value) }}{% endif +%}
{% endfor %}
order by _levin_last_at desc, _levin_sequence{% for key in keys %}, k{{ loop.index0 }}{% endfor +%}
limit {{ limit }}{% if offset %} offset {{ offset }}{% endif +%}
{% endmacro %}

{# Rows that are not to be sent as they are, or that are to be tried again. What an interrupted run met has
   an empty fingerprint: nobody knows any more under which definition it was sent. A key that is set aside
   has none. #}
{% macro mark_parked() %}
{{ step("mark rejections") }}
update {{ rejections }}
set _levin_parked = {% if park %}1 = 1{% else %}1 = 0{% endif +%}
where {% if park %}not _levin_parked and _levin_fingerprint <> ''{% else %}_levin_parked{% endif +%}
{% for value in key %}
  and {{ keys[loop.index0].name }} = {{ d.value_of(keys[loop.index0], value) }}
{% endfor %}
{{ step("count what is parked", "one row") }}
{{ d.count_parked() }}
{% endmacro %}

{% macro count_parked() %}
update {{ state }}
set parked = (select count(*) from {{ rejections }} where _levin_parked), basis = {{ generation }}
where generation = {{ generation }}
{% endmacro %}
