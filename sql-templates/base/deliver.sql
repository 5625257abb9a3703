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
    due_before = {{ due_before }},
    basis = {{ generation }}
where generation = {{ generation }}
{% endmacro %}

{# The rows of one operation. Engines that read in pages ask with `after` and `limit`. #}
{% macro deliver() %}
{{ step("deliver " ~ operation, "rows") }}
{{ d.delivered_rows() }}
{% endmacro %}
