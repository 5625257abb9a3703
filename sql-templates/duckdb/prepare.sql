{# Not as a sub-select: there a second column of one name would quietly get another. #}
{% macro model_rows() %}
{{ step("the model", "rows") }}
{{ model }}
{% endmacro %}
