{# A default that comes with a new column is written nowhere, and the rows are copied as they are: with one more column
   each of them would be made anew. #}
{% macro generation_here() %}{% endmacro %}
{% macro add_generation() %}
{{ step("add the generation") }}
alter table {{ diff }} add column _levin_generation bigint default {{ generation }}
{{ step("leave no default behind") }}
alter table {{ diff }} alter column _levin_generation drop default
{% endmacro %}
{# A unique index says in half the time of a `group by` that no key comes twice, and the snapshot
   needs it anyway. When it fails, the run sets keys aside. #}
{% macro first_unique() %}{{ d.index_keys(diff, keys) }}{% endmacro %}
{% macro first_duplicates() %}0{% endmacro %}
{# As stored: what compresses well takes no more room in the index either. #}
{% macro longest_key() %}
{% if keys | selectattr("unbounded") | list %}
(select coalesce(max({% for key in keys %}pg_column_size({{ key.name }}){% if not loop.last %} + {% endif %}{% endfor %}), 0) from {{ diff }} where _levin_operation = 'added')
{% else %}0{% endif %}
{% endmacro %}
