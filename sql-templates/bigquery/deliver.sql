{# A join asks for an equality of both sides. #}
{% macro join_known() %}
left join {{ snapshot }} as k on {{ d.same_key(keys, "k", "m") }}
{% endmacro %}
