{# Said durably before the first request leaves: which table, which notes. From here on whoever
   finds the run dead must settle it. #}
{% macro begin_delivery() %}
{{ step("begin the delivery", "one row") }}
update {{ state }}
set delivering = {{ generation }},
    delivering_table = {{ diff_name }},
    delivering_shape = {{ delivering_shape }},
    delivering_sent = {{ delivering_sent }},
    ran_at = {{ d.now() }},
    delivering_store = {{ store }},
    delivering_run = {{ run }},
    due_before = {{ due_before }}
where generation = {{ generation }}
{% endmacro %}

{# The destination was emptied: nothing that it once accepted, or may have, is there any more. #}
{% macro forget_accepted() %}
{{ step("forget what was accepted") }}
delete from {{ snapshot }}
{{ step("forget what was in doubt") }}
delete from {{ doubts }}
{{ step("nothing is in doubt", "one row") }}
update {{ state }}
set doubts = 0
where generation = {{ generation }}
{% endmacro %}

{# The rows of one operation. Engines that read in pages ask with `after` and `through`. #}
{% macro deliver() %}
{{ step("deliver " ~ operation, "rows") }}
{{ d.delivered_rows() }}
{% endmacro %}
