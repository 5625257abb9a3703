{# The condition of a deletion holds no subquery inside another one. What a merge is made of may hold any, and whatever
   it matches, once or more often, is taken out once. #}
{% macro close_rejections() %}
{% if ranges %}
{{ step("close accepted rejections") }}
merge into {{ rejections }} as t
using (
  select distinct {{ d.key_columns("f") }} from {{ diff }} as f
  where {{ d.accepted("f") }}
) as f on not (t._levin_generation = {{ generation }} and t._levin_checkpoint = {{ checkpoint + 1 }})
  and {{ d.same_rejection("f", "t") }}
when matched then delete
{% endif %}
{% if last %}
{{ step("close rejections") }}
{{ d.delete_from(rejections) }}
where not (t._levin_generation = {{ generation }} and t._levin_checkpoint = {{ checkpoint + 1 }})
  and not exists (
    select 1 from {{ diff }} as f
    where {{ d.same_rejection("f", "t") }}
  ){% if generation != diff_generation %} and t._levin_fingerprint is not null{% endif +%}
{% endif %}
{% endmacro %}

{# Rows of the diff about which the destination said yes, or that nobody will send, and the record that each is about. #}
{% macro ended_rows() %}
using (
  select distinct {% if matching and shape == "full" %}f._levin_operation, {{ d.match_columns("f") }}, {% endif %}{{ d.key_columns("f") }} from {{ diff }} as f
  where {{ d.accepted("f") }}{% if forgets_removed %} or f._levin_operation = 'removed'{% endif +%}
) as f on {{ d.same_key(keys, "f", "t") }}{% if matching and shape == "full" +%}
  and {{ d.same_record("f", "t") }}{% endif +%}
when matched then delete
{% endmacro %}
{% macro end_doubts() %}
{{ step("end doubts") }}
merge into {{ doubts }} as t
{{ d.ended_rows() }}
{% endmacro %}

{% macro take_accepted_out() %}
{{ step("take accepted rows out of the snapshot") }}
merge into {{ snapshot }} as t
{{ d.ended_rows() }}
{% endmacro %}

{% macro take_values() %}
{{ step("take values from who had them") }}
merge into {{ snapshot }} as t
using (
  select distinct {{ d.key_columns("f") }}, {{ d.match_columns("f") }} from {{ diff }} as f
  where f._levin_claim is null
    and ({{ d.accepted("f") }}{% if exceptions %} or exists (select 1 from {{ outcomes }} as o where o.in_doubt and {{ d.same_row("o", "f") }}){% endif %})
) as f on t._levin_generation < {{ diff_generation }}
  and {{ d.is_of("f", "t") }} and not ({{ d.same_key(keys, "f", "t") }})
when matched then delete
{% endmacro %}
{% macro end_doubts_about_values() %}
{{ step("end doubts about values that others have now") }}
merge into {{ doubts }} as t
using (
  select distinct {{ d.key_columns("f") }}, {{ d.match_columns("f") }} from {{ diff }} as f
  where f._levin_claim is null
    and {{ d.accepted("f") }}
) as f on t._levin_generation < {{ diff_generation }}
  and {{ d.is_of("f", "t") }} and not ({{ d.same_key(keys, "f", "t") }})
when matched then delete
{% endmacro %}

{# An update's new values read no table. #}
{% macro count_left() %}
merge into {{ state }} as t
using (
  select (select count(*) from {{ doubts }}) as doubts,
    (select count(*) from {{ rejections }}) as rejections,
    (select count(*) from {{ rejections }} where _levin_fingerprint is not null) as refused,
    (select count(*) from {{ rejections }} where _levin_parked) as parked
) as c on t.generation = {{ generation }}
when matched then update set doubts = c.doubts, rejections = c.rejections, refused = c.refused, parked = c.parked{% if lease_seconds %},
  lease_until = {{ d.seconds_later(d.now(), lease_seconds) }}{% endif +%}
{% endmacro %}
{% macro count_parked() %}
merge into {{ state }} as t
using (
  select count(*) as parked from {{ rejections }} where _levin_parked
) as c on t.generation = {{ generation }}
when matched then update set parked = c.parked, basis = {{ generation }}
{% endmacro %}

{# A key is no list, struct or map. #}
{% macro same_rejection(left, right) %}
{% for key in keys %}coalesce({{ d.text(d.one_text(key, col(left, key.name))) }}, '') = coalesce({{ d.text(d.one_text(key, col(right, key.name))) }}, '') and ({{ col(left, key.name) }} is null) = ({{ col(right, key.name) }} is null){% if not loop.last %} and {% endif %}{% endfor %}
{% endmacro %}
